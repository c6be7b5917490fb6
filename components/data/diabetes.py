"""The diabetes table that scikit-learn ships: ten measurements of 442 patients and the disease's progression.

Source: Efron, Hastie, Johnstone and Tibshirani 2004, "Least Angle Regression".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet


def read(directory: Path) -> None:
    """Write `diabetes.parquet`: `index` (row in the source), ten `features` (unscaled) and `target` (25 to 346)."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    frame = pl.DataFrame(
        {
            "index": np.arange(len(found.data), dtype=np.int16),
            "features": pl.Series(found.data.astype(np.float64), dtype=pl.Array(pl.Float64, 10)),
            "target": found.target.astype(np.int16),
        }
    )
    parquet.write(frame, directory / "diabetes.parquet")
