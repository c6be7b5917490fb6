"""Handwritten digits of 8 x 8 pixels that scikit-learn ships.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet


def read(directory: Path) -> None:
    """Write `digits.parquet`: `index` (row in the source), `image` (64 uint8 from 0 to 16, row by row), `label`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    frame = pl.DataFrame(
        {
            "index": pl.Series(np.arange(len(digits.data), dtype=np.int16)),
            "image": pl.Series(digits.data.astype(np.uint8), dtype=pl.Array(pl.UInt8, 64)),
            "label": pl.Series(digits.target.astype(np.int8)),
        }
    )
    parquet.write(frame, directory / "digits.parquet")
