"""Tidy tables that every stage writes: `metrics.parquet` and `curves.parquet`.

A metric is either a value of the whole test set or one value per test item; the judge averages items. Beside each
value stands its hygiene (unit, number of items, normaliser, share of masked or padded items), so that a number can
be read without the code that made it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from components.errors import TesseraError

METRIC_SCHEMA = {
    "metric": pl.String,
    "at": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "sample": pl.String,
    "samples": pl.Int64,
    "variance": pl.Float64,
    "normaliser": pl.String,
    "masked_share": pl.Float64,
}
CURVE_SCHEMA = {"series": pl.String, "step": pl.Int64, "value": pl.Float64, "unit": pl.String}


class MetricTableError(TesseraError):
    """A metric was added in a form that the judge could not read."""


def condition(at: Mapping[str, object] | None) -> str:
    """Spell a condition canonically: `{"k": 8, "split": "test"}` becomes `"k=8,split=test"`, None becomes `""`."""
    if not at:
        return ""
    return ",".join(f"{key}={_spell(at[key])}" for key in sorted(at))


def _spell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class MetricTable:
    """Collects metrics and writes them as one Parquet file."""

    def __init__(self) -> None:
        self._columns: dict[str, list] = {name: [] for name in METRIC_SCHEMA}
        self._forms: dict[tuple[str, str], bool] = {}

    def add(
        self,
        metric: str,
        value: float,
        *,
        unit: str,
        at: Mapping[str, object] | None = None,
        samples: int,
        variance: float | None = None,
        normaliser: str = "",
        masked_share: float = 0.0,
    ) -> None:
        """Add the value of a whole test set.

        Args:
            metric: Name, one of the study's METRICS.
            value: Finite number in `unit`.
            unit: Unit in the field's spelling ("dB", "bits", "probability", "" for a pure number).
            at: Condition under which it was measured, such as `{"k": 8}`.
            samples: Number of test items behind the value.
            variance: Sampling variance of the value over test items, where it is known.
            normaliser: What the value was divided by ("pixels", "tokens"), if anything.
            masked_share: Share of items that were masked or padded and left out, 0 to 1.

        Raises:
            MetricTableError: The value is not finite, or the same metric and condition was added before.
        """
        self._claim(metric, condition(at), per_item=False)
        self._append(metric, condition(at), [value], unit, [None], samples, variance, normaliser, masked_share)

    def add_items(
        self,
        metric: str,
        values: Iterable[float],
        *,
        unit: str,
        at: Mapping[str, object] | None = None,
        items: Sequence[object] | None = None,
        normaliser: str = "",
        masked_share: float = 0.0,
    ) -> None:
        """Add one value per test item; item names (default: positions) pair across arms and seeds.

        Raises:
            MetricTableError: A value is not finite, names and values differ in number, or it was added before.
        """
        values = [float(value) for value in values]
        names = [str(item) for item in (items if items is not None else range(len(values)))]
        if len(names) != len(values):
            raise MetricTableError(f"{metric}: {len(values)} values but {len(names)} item names; give one name each.")
        self._claim(metric, condition(at), per_item=True)
        self._append(metric, condition(at), values, unit, names, 1, None, normaliser, masked_share)

    def _claim(self, metric: str, at: str, *, per_item: bool) -> None:
        if (metric, at) in self._forms:
            raise MetricTableError(f"{metric} at {at or '(no condition)'} was added twice; add each once per stage.")
        self._forms[(metric, at)] = per_item

    def _append(self, metric, at, values, unit, names, samples, variance, normaliser, masked_share) -> None:
        for name, value in zip(names, values, strict=True):
            if not math.isfinite(value):
                where = f" (item {name})" if name is not None else ""
                raise MetricTableError(
                    f"{metric} at {at or '(no condition)'}{where} is {value}; expected a finite number."
                )
        count = len(values)
        self._columns["metric"] += [metric] * count
        self._columns["at"] += [at] * count
        self._columns["value"] += [float(value) for value in values]
        self._columns["unit"] += [unit] * count
        self._columns["sample"] += names
        self._columns["samples"] += [int(samples)] * count
        self._columns["variance"] += [variance] * count
        self._columns["normaliser"] += [normaliser] * count
        self._columns["masked_share"] += [float(masked_share)] * count

    def frame(self) -> pl.DataFrame:
        """Return the table in METRIC_SCHEMA, in the order of adding."""
        return pl.DataFrame(self._columns, schema=METRIC_SCHEMA)

    def write(self, directory: Path) -> None:
        """Write `metrics.parquet` into `directory`."""
        write_parquet(self.frame(), directory / "metrics.parquet")


class CurveTable:
    """Collects step series (losses, learning rates) and writes them as one Parquet file."""

    def __init__(self) -> None:
        self._columns: dict[str, list] = {name: [] for name in CURVE_SCHEMA}

    def add(self, series: str, step: int, value: float, *, unit: str = "") -> None:
        """Add one point of a series."""
        self._columns["series"].append(series)
        self._columns["step"].append(int(step))
        self._columns["value"].append(float(value))
        self._columns["unit"].append(unit)

    def frame(self) -> pl.DataFrame:
        """Return the table in CURVE_SCHEMA, in the order of adding."""
        return pl.DataFrame(self._columns, schema=CURVE_SCHEMA)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> CurveTable:
        """Rebuild a table from its frame (used when a training resumes)."""
        table = cls()
        table._columns = {name: frame[name].to_list() for name in CURVE_SCHEMA}
        return table

    def write(self, directory: Path) -> None:
        """Write `curves.parquet` into `directory`."""
        write_parquet(self.frame(), directory / "curves.parquet")


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame so that equal frames give equal bytes (fixed codec, level and row groups)."""
    frame.write_parquet(path, compression="zstd", compression_level=3, row_group_size=1 << 20, statistics=False)
