"""What the runs of a variant measured, by arm, metric and condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.errors import TesseraError, did_you_mean
from components.metrics.tables import CURVE_SCHEMA, METRIC_SCHEMA, MetricTable, condition
from flows.ledger.statistics import Measurement, Replicates, mean, replicates

CURVE_POINTS = 200

JUDGED_METRICS = {
    "arm": pl.String,
    "seed": pl.Int64,
    "metric": pl.String,
    "at": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "samples": pl.Int64,
    "variance": pl.Float64,
    "normaliser": pl.String,
    "masked_share": pl.Float64,
}
SUMMARY = {
    "arm": pl.String,
    "metric": pl.String,
    "at": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
    "samples": pl.Int64,
    "unit": pl.String,
    "normaliser": pl.String,
    "masked_share": pl.Float64,
}
JUDGED_CURVES = {"arm": pl.String, "seed": pl.Int64, **CURVE_SCHEMA}


class MeasurementError(TesseraError):
    """A claim asks for a number that no run measured, or a run's table cannot be read."""


def parse_condition(at: str) -> dict[str, str]:
    """Read a condition back: `"k=8,split=test"` becomes `{"k": "8", "split": "test"}`."""
    return dict(part.split("=", 1) for part in at.split(",")) if at else {}


@dataclass(frozen=True)
class _Cell:
    """Rows of one metric at one condition in one run."""

    measurement: Measurement
    unit: str
    normaliser: str
    masked_share: float


class Measurements:
    """The metrics of every (arm, seed) of a variant.

    Args:
        runs: Run directory of each evaluation; each holds a `metrics.parquet`.
        constants: Arms whose numbers do not depend on a seed, so that one evaluation stands for all.
        derived: Further metrics computed by the judge, by (arm, seed).

    Raises:
        MeasurementError: A table is missing, misses a column, or holds a metric in two forms.
    """

    def __init__(
        self,
        runs: Mapping[tuple[str, int], Path],
        constants: frozenset[str] = frozenset(),
        derived: Mapping[tuple[str, int], MetricTable] | None = None,
    ) -> None:
        self._constants = constants
        self._cells: dict[tuple[str, int], dict[tuple[str, str], _Cell]] = {}
        for run in runs:
            self._cells[run] = _cells(*run, _read(runs[run] / "metrics.parquet", METRIC_SCHEMA))
        for run, table in (derived or {}).items():
            if run not in self._cells:
                raise MeasurementError(f"derived metrics name the run {run}, which this variant does not have.")
            for key, cell in _cells(*run, table.frame()).items():
                if key in self._cells[run]:
                    raise MeasurementError(f"derived metric {_name(*key)} of {run} is measured by the run already.")
                self._cells[run][key] = cell

    @property
    def arms(self) -> list[str]:
        """Arms that were evaluated, in the order given."""
        return list(dict.fromkeys(arm for arm, _ in self._cells))

    def runs(self, arm: str) -> list[tuple[str, int]]:
        """The evaluated runs of an arm, by seed.

        Raises:
            MeasurementError: The arm was not evaluated in this variant.
        """
        found = sorted(run for run in self._cells if run[0] == arm)
        if not found:
            raise MeasurementError(
                f"the arm {arm!r} was not evaluated; evaluated are {', '.join(self.arms) or 'none'}."
                f"{did_you_mean(arm, self.arms)}"
            )
        return found

    def measurements(self, arm: str, metric: str, at: Mapping[str, object] | None = None) -> list[Measurement]:
        """One measurement per seed.

        Raises:
            MeasurementError: A run of the arm does not have the metric at this condition; says what it has.
        """
        return [self._cell(run, metric, condition(at)).measurement for run in self.runs(arm)]

    def replicates(self, arm: str, metric: str, at: Mapping[str, object] | None = None) -> Replicates:
        """The metric over the seeds of an arm, as the statistics need it."""
        return replicates(
            self.measurements(arm, metric, at),
            constant=self.is_constant(arm),
            source=f"{arm}\x00{metric}\x00{condition(at)}",
        )

    def is_constant(self, arm: str) -> bool:
        """Whether one evaluation of the arm stands for every seed."""
        return arm in self._constants and len(self.runs(arm)) == 1

    def unit(self, arm: str, metric: str, at: Mapping[str, object] | None = None) -> str:
        """The metric's unit."""
        return self._cell(self.runs(arm)[0], metric, condition(at)).unit

    def normaliser(self, arm: str, metric: str, at: Mapping[str, object] | None = None) -> str:
        """What the metric was divided by."""
        return self._cell(self.runs(arm)[0], metric, condition(at)).normaliser

    def conditions(self, arm: str, metric: str) -> list[str]:
        """Conditions at which the arm's first run has the metric, in the order written."""
        return [at for name, at in self._cells[self.runs(arm)[0]] if name == metric]

    def along(self, arm: str, metric: str, key: str, at: Mapping[str, object] | None = None) -> list[dict[str, str]]:
        """Conditions that add `key` to `at`, by the key's numeric value.

        Raises:
            MeasurementError: The metric is not measured along the key, or a value of the key is not a number.
        """
        wanted = parse_condition(condition(at))
        found = []
        for text in self.conditions(arm, metric):
            entries = parse_condition(text)
            if key in entries and {name: entries[name] for name in entries if name != key} == wanted:
                found.append(entries)
        if not found:
            self._cell(self.runs(arm)[0], metric, condition({**(at or {}), key: "..."}))
        try:
            return sorted(found, key=lambda entries: float(entries[key]))
        except ValueError:
            raise MeasurementError(
                f"{metric} of {arm} along {key!r}: {', '.join(entries[key] for entries in found)} are not all numbers."
            ) from None

    def _cell(self, run: tuple[str, int], metric: str, at: str) -> _Cell:
        cells = self._cells[run]
        if (metric, at) in cells:
            return cells[(metric, at)]
        where = f"arm {run[0]!r}, seed {run[1]}"
        conditions = [known for name, known in cells if name == metric]
        if conditions:
            raise MeasurementError(
                f"{where}: {metric} was not measured at {at or '(no condition)'}; it was at "
                f"{_list(known or '(no condition)' for known in conditions)}. Correct `at` in the claim or measure it."
            )
        metrics = list(dict.fromkeys(name for name, _ in cells))
        raise MeasurementError(
            f"{where}: no metric {metric!r}; measured are {_list(metrics) or 'none'}.{did_you_mean(metric, metrics)} "
            "Correct the name in the claim or measure it in the evaluation."
        )

    def frame(self) -> pl.DataFrame:
        """Mean over items of every metric of every run, in JUDGED_METRICS."""
        rows = [
            {
                "arm": arm,
                "seed": seed,
                "metric": metric,
                "at": at,
                "value": cell.measurement.mean,
                "unit": cell.unit,
                "samples": cell.measurement.samples,
                "variance": cell.measurement.mean_variance,
                "normaliser": cell.normaliser,
                "masked_share": cell.masked_share,
            }
            for (arm, seed), cells in self._cells.items()
            for (metric, at), cell in cells.items()
        ]
        return pl.DataFrame(rows, schema=JUDGED_METRICS)

    def summary(self) -> pl.DataFrame:
        """Mean over seeds of every metric of every arm with its interval (infinite where refused), in SUMMARY.

        A condition that only some seeds of an arm measured is summarised over those.
        """
        rows = []
        for arm in self.arms:
            runs = self.runs(arm)
            for metric, at in dict.fromkeys(key for run in runs for key in self._cells[run]):
                cells = [self._cells[run][metric, at] for run in runs if (metric, at) in self._cells[run]]
                estimate = mean(
                    replicates(
                        [cell.measurement for cell in cells], constant=self.is_constant(arm), source=f"{metric}{at}"
                    )
                )
                rows.append(
                    {
                        "arm": arm,
                        "metric": metric,
                        "at": at,
                        "mean": estimate.value,
                        "low": estimate.low,
                        "high": estimate.high,
                        "n": estimate.seeds,
                        "samples": estimate.samples,
                        "unit": cells[0].unit,
                        "normaliser": cells[0].normaliser,
                        "masked_share": sum(cell.masked_share for cell in cells) / len(cells),
                    }
                )
        return pl.DataFrame(rows, schema=SUMMARY)


def _list(names) -> str:
    names = list(names)
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def _name(metric: str, at: str) -> str:
    return f"{metric} at {at}" if at else metric


def _read(path: Path, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if not path.is_file():
        raise MeasurementError(f"{path} is missing; rerun the stage that writes it.")
    frame = pl.read_parquet(path)
    missing = [name for name in schema if name not in frame.columns]
    if missing:
        raise MeasurementError(f"{path} has no column {', '.join(missing)}; expected {', '.join(schema)}.")
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _cells(arm: str, seed: int, frame: pl.DataFrame) -> dict[tuple[str, str], _Cell]:
    cells = {}
    for (metric, at), rows in frame.group_by(["metric", "at"], maintain_order=True):
        samples = rows["sample"]
        whole = samples.null_count()
        if whole not in (0, len(rows)) or (whole and len(rows) > 1):
            raise MeasurementError(
                f"arm {arm!r}, seed {seed}: {_name(metric, at)} has both per-item and whole-set rows, or several "
                "whole-set rows; write either one row per test item or one row."
            )
        items = () if whole else tuple(samples.to_list())
        if len(set(items)) != len(items):
            twice = next(item for item in items if items.count(item) > 1)
            raise MeasurementError(
                f"arm {arm!r}, seed {seed}: {_name(metric, at)} has the test item {twice!r} twice; items pair by name."
            )
        cells[(metric, at)] = _Cell(
            measurement=Measurement(
                seed=seed,
                items=items,
                values=rows["value"].to_numpy(),
                samples=len(items) or int(rows["samples"][0]),
                variance=rows["variance"][0] if whole else None,
            ),
            unit=rows["unit"][0],
            normaliser=rows["normaliser"][0],
            masked_share=float(rows["masked_share"].mean()),
        )
    return cells


def thinned_curves(runs: Mapping[tuple[str, int], Path]) -> pl.DataFrame:
    """Step series of the given runs, at most CURVE_POINTS evenly spaced points each, in JUDGED_CURVES.

    The first and the last step of a series are always kept. A run without `curves.parquet` has no curves.
    """
    frames = []
    for (arm, seed), directory in runs.items():
        path = directory / "curves.parquet"
        if not path.is_file():
            continue
        curves = _read(path, CURVE_SCHEMA).sort("series", "step", maintain_order=True)
        position = pl.int_range(pl.len()).over("series")
        length = pl.len().over("series")
        points = pl.min_horizontal(length, CURVE_POINTS)
        # Point p of a series is kept when it is the first to reach its evenly spaced rank.
        rank = position * (points - 1) // pl.max_horizontal(length - 1, 1)
        before = (position - 1) * (points - 1) // pl.max_horizontal(length - 1, 1)
        kept = curves.filter((position == 0) | (rank != before))
        frames.append(kept.select(pl.lit(arm).alias("arm"), pl.lit(seed, pl.Int64).alias("seed"), *CURVE_SCHEMA))
    return pl.concat(frames) if frames else pl.DataFrame(schema=JUDGED_CURVES)
