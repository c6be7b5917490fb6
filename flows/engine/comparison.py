"""Is a rerun the same as what was recorded? Two levels: bit for bit, or inside what the seeds let one expect.

The second level asks, for every (arm, metric, condition) with recorded values x_1 .. x_n (mean m, standard deviation s)
and rerun values y_1 .. y_r, two questions:

    does each y lie in the prediction interval     m +- t(n-1) s sqrt(1 + 1/n)
    does their mean lie in that of a mean of r      m +- t(n+r-2) s' sqrt(1/r + 1/n)     s' pooled over both

At three seeds the first alone would notice only shifts of some hundred s, because t(2) has such heavy tails; the second
notices ten. The level is shared between the two (Bonferroni) and kept over all metrics of the paper (Holm), so that a
faithful rerun is called different at most once in a hundred times.

Letters: n recorded seeds, r seeds of the rerun.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

FAMILY_LEVEL = 0.99
RELATIVE_FLOOR = 1e-6
# Below this a value is rounding noise around zero, in any unit.
ABSOLUTE_FLOOR = 1e-12

Cell = tuple[str, str, str]
"""(arm, metric, condition)."""


@dataclass(frozen=True)
class Difference:
    """A metric that the rerun did not reproduce.

    Attributes:
        arm: Arm.
        metric: Metric.
        at: Condition; "" for none.
        recorded: Recorded value by seed.
        rerun: Value of the rerun by seed.
        reason: What is wrong, with the interval that was missed where there is one.
    """

    arm: str
    metric: str
    at: str
    recorded: Mapping[int, float]
    rerun: Mapping[int, float]
    reason: str

    def __str__(self) -> str:
        where = f" at {self.at}" if self.at else ""
        values = f"recorded {_spell(self.recorded)}, rerun {_spell(self.rerun)}"
        return f"{self.metric} of {self.arm}{where}: {self.reason}; {values}"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        compared: Number of (arm, metric, condition) compared.
        outside: Those that differ, in the order of the table.
        undecided: Those that differ, but have one seed only, so that nothing says how much they may.
        resolution: Shift of a metric's mean, in standard deviations over seeds, that would have been noticed in the
            metric with fewest seeds; NaN at the bit-exact level.
    """

    compared: int
    outside: tuple[Difference, ...]
    undecided: tuple[Difference, ...] = ()
    resolution: float = math.nan


def compare_exactly(recorded: pl.DataFrame, rerun: pl.DataFrame, clocks: Collection[str] = ()) -> Comparison:
    """Compare two tables of a judge bit for bit, hygiene columns included.

    Args:
        recorded: The committed table.
        rerun: The table of the rerun.
        clocks: Metrics that depend on wall clocks; of them is asked what the seeds let one expect.
    """
    if clocks:
        timed = pl.col("metric").is_in(list(clocks))
        exact = compare_exactly(recorded.filter(~timed), rerun.filter(~timed))
        expected = compare_by_seeds(recorded.filter(timed), rerun.filter(timed))
        return Comparison(
            exact.compared + expected.compared,
            exact.outside + expected.outside,
            expected.undecided,
            expected.resolution,
        )
    before, after = _rows(recorded), _rows(rerun)
    cells = _cells(recorded, rerun)
    outside = []
    for cell in cells:
        old, new = before.get(cell, {}), after.get(cell, {})
        if old != new:
            values = [{seed: row["value"] for seed, row in rows.items()} for rows in (old, new)]
            outside.append(Difference(*cell, *values, _exact_reason(old, new)))
    return Comparison(len(cells), tuple(outside))


def compare_by_seeds(recorded: pl.DataFrame, rerun: pl.DataFrame, level: float = FAMILY_LEVEL) -> Comparison:
    """Compare two tables of a judge by what the recorded spread over seeds lets one expect (see the module).

    Args:
        recorded: The committed table: arm, seed, metric, at, value and hygiene columns.
        rerun: The table of the rerun.
        level: Probability that a faithful rerun has nothing outside.
    """
    before, after = _values(recorded), _values(rerun)
    cells = _cells(recorded, rerun)
    outside: dict[Cell, Difference] = {}
    undecided: dict[Cell, Difference] = {}
    tested: list[tuple[Cell, float]] = []
    for cell in cells:
        old, new = before.get(cell, {}), after.get(cell, {})
        if old.keys() != new.keys():
            outside[cell] = Difference(*cell, old, new, _missing_reason(old, new))
        elif all(_near(old[seed], new[seed], old.values()) for seed in old):
            tested.append((cell, 1.0))
        elif len(old) < 2:
            undecided[cell] = Difference(*cell, old, new, "one seed says nothing about the spread")
        else:
            tested.append((cell, _p_value(old, new)))
    for cell in _holm(tested, 1 - level):
        old, new = before[cell], after[cell]
        low, high = _interval(list(old.values()), 1 - level, len(tested))
        reason = f"not explained by the seeds (a seed's prediction interval is [{low:.6g}, {high:.6g}])"
        outside[cell] = Difference(*cell, old, new, reason)
    return Comparison(
        compared=len(cells),
        outside=tuple(outside[cell] for cell in cells if cell in outside),
        undecided=tuple(undecided.values()),
        resolution=_resolution(before, tested, 1 - level),
    )


def _p_value(old: Mapping[int, float], new: Mapping[int, float]) -> float:
    """Return the smaller p-value of the two questions, corrected for asking n + 1 times."""
    import numpy as np
    from scipy import stats

    x = np.array([old[seed] for seed in old])
    y = np.array([new[seed] for seed in old])
    n, r = len(x), len(y)
    far = np.array([not _near(old[seed], new[seed], old.values()) for seed in old])
    spread = x.std(ddof=1) * math.sqrt(1 + 1 / n)
    pooled = math.sqrt((x.var(ddof=1) * (n - 1) + y.var(ddof=1) * (r - 1)) / (n + r - 2)) * math.sqrt(1 / n + 1 / r)
    with np.errstate(divide="ignore", invalid="ignore"):
        single = np.where(far, np.abs(y - x.mean()) / spread, 0.0)
        shift = 0.0 if _near(x.mean(), y.mean(), x) else np.abs(y.mean() - x.mean()) / pooled
    by_seed = 2 * stats.t.sf(single.max(), n - 1) * r
    return float(min(1.0, 2 * min(by_seed, 2 * stats.t.sf(shift, n + r - 2))))


def _holm(tested: Sequence[tuple[Cell, float]], alpha: float) -> list[Cell]:
    """Return the cells that Holm's step-down procedure rejects."""
    rejected = []
    for rank, (cell, p) in enumerate(sorted(tested, key=lambda entry: entry[1])):
        if p > alpha / (len(tested) - rank):
            break
        rejected.append(cell)
    return rejected


def _interval(values: Sequence[float], alpha: float, family: int) -> tuple[float, float]:
    """Return the prediction interval of one seed at the first, strictest step of Holm's procedure."""
    import numpy as np
    from scipy import stats

    n = len(values)
    half = stats.t.isf(alpha / family / (4 * n), n - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _resolution(before: Mapping[Cell, Mapping[int, float]], tested: list[tuple[Cell, float]], alpha: float) -> float:
    from scipy import stats

    seeds = [len(before[cell]) for cell, _ in tested if len(before[cell]) > 1]
    if not seeds:
        return math.nan
    n = min(seeds)
    return float(stats.t.isf(alpha / len(tested) / 4, 2 * n - 2) * math.sqrt(2 / n))


def _near(old: float, new: float, scale: Sequence[float]) -> bool:
    floor = max(RELATIVE_FLOOR * max(abs(value) for value in scale), ABSOLUTE_FLOOR)
    return abs(new - old) <= floor


def _cells(*tables: pl.DataFrame) -> list[Cell]:
    rows = (row for table in tables for row in table.select("arm", "metric", "at").iter_rows())
    return list(dict.fromkeys(rows))


def _rows(table: pl.DataFrame) -> dict[Cell, dict[int, dict[str, object]]]:
    found: dict[Cell, dict[int, dict[str, object]]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault((row["arm"], row["metric"], row["at"]), {})[row["seed"]] = row
    return found


def _values(table: pl.DataFrame) -> dict[Cell, dict[int, float]]:
    return {cell: {seed: row["value"] for seed, row in rows.items()} for cell, rows in _rows(table).items()}


def _missing_reason(old: Mapping[int, object], new: Mapping[int, object]) -> str:
    if not new:
        return "the rerun does not have it"
    if not old:
        return "only the rerun has it"
    return f"seeds {sorted(old)} were recorded, the rerun has {sorted(new)}"


def _exact_reason(old: Mapping[int, Mapping], new: Mapping[int, Mapping]) -> str:
    if old.keys() != new.keys():
        return _missing_reason(old, new)
    columns = sorted({name for seed in old for name in old[seed] if old[seed][name] != new[seed].get(name)})
    if columns != ["value"]:
        return f"not equal bit for bit (columns {', '.join(columns)})"
    return "not equal bit for bit"


def _spell(values: Mapping[int, float]) -> str:
    if not values:
        return "nothing"
    return ", ".join(f"s{seed} {value!r}" for seed, value in sorted(values.items()))
