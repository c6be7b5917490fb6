"""Tables of two-digit numbers whose target is a noisy linear function: regression that a token model can be asked.

    y = clip(round(50 + w . (x - 49.5) + noise), 0, 99),      x uniform on 0..99

Each table has weights of its own, of the length that gives y a standard deviation of `deviation` of which the noise is
`noise_share` of the variance: always answering the mean then errs by 1 / sqrt(noise_share) times the noise (2.2 for a
fifth), and no model by less than the noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.errors import TesseraError

FILE = "tables.parquet"
_HIGHEST = 99


class NumberTablesError(TesseraError):
    """A table that cannot be made as asked."""


def table(
    index: int, *, inputs: int, train: int, test: int, deviation: float, noise_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one table.

    Args:
        index: Number of the table; it decides weights, inputs and noise.
        inputs: Numbers in a row.
        train: Rows of the split `train`, which come first.
        test: Rows of the split `test`.
        deviation: Standard deviation of the target before it is rounded and clipped.
        noise_share: Share of the noise in its variance, between 0 and 1.

    Returns:
        Inputs (N, inputs) uint8, targets (N,) uint8 and weights (inputs,).

    Raises:
        NumberTablesError: `noise_share` is not between 0 and 1.
    """
    if not 0 < noise_share < 1:
        raise NumberTablesError(f"noise_share is {noise_share}; expected a share between 0 and 1.")
    generator = np.random.default_rng([index, *b"number table"])
    weights = generator.standard_normal(inputs)
    numbers = generator.integers(0, _HIGHEST + 1, (train + test, inputs))
    uniform_variance = ((_HIGHEST + 1) ** 2 - 1) / 12
    weights *= deviation * np.sqrt((1 - noise_share) / uniform_variance) / np.linalg.norm(weights)
    noise = generator.standard_normal(len(numbers)) * deviation * np.sqrt(noise_share)
    target = np.clip(np.round(50 + (numbers - _HIGHEST / 2) @ weights + noise), 0, _HIGHEST)
    return numbers.astype(np.uint8), target.astype(np.uint8), weights


def generate(
    directory: Path, *, tables: int, inputs: int, train: int, test: int, deviation: float, noise_share: float
) -> None:
    """Write the data set `number-tables`: `tables.parquet`, one row per row of a table.

    Columns: `table`, `split`, `row` (number within its table), `inputs` (numbers 0..99) and `target` (0..99).

    Args:
        directory: Existing directory.
        tables: Number of tables, one per seed 0 .. tables - 1.
        inputs, train, test, deviation, noise_share: As of `table`.
    """
    frames = []
    for index in range(tables):
        numbers, target, _ = table(
            index, inputs=inputs, train=train, test=test, deviation=deviation, noise_share=noise_share
        )
        frames.append(
            pl.DataFrame(
                {
                    "table": np.full(len(target), index, np.int16),
                    "split": ["train"] * train + ["test"] * test,
                    "row": np.arange(len(target), dtype=np.int32),
                    "inputs": pl.Series(numbers, dtype=pl.Array(pl.UInt8, inputs)),
                    "target": target,
                }
            )
        )
    parquet.write(pl.concat(frames), directory / FILE)
