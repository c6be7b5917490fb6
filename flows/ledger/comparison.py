"""Two quantities side by side: their difference with interval, p value and probability of improvement; ranks of many.

Quantities pair where they can. Runs of the same seed form pairs, since a seed decides the data draw and the order in
which a study shows them; test items of the same name form pairs too. The difference is then one quantity over the
common seeds, and its interval is the judge's (see `statistics`):

    difference +- sqrt(t(d)^2 s2 + t(m-1)^2 v),

with s2 the squared standard error over seeds (paired: d = n - 1), v what the common test items explain, m items. Where
fewer than three seeds are common, seeds do not pair: s2 is the sum of both sides' and d is Welch's. The p value is two
sided and is the level at which this very interval ends at zero, so that p < 0.05 and "zero lies outside the 95%
interval" are one statement.

The probability of improvement is that of a run of one side being better than a run of the other, over all pairs of
runs, ties counting half. The rank of an entry is 1 + the number of papers that have a significantly better entry
(p < 0.01); entries that cannot be told apart share a rank. Levels are not corrected for the number of comparisons.

Sources: Welch 1947, The generalization of Student's problem when several different population variances are involved;
Mann and Whitney 1947; Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from flows.ledger.measurements import MeasurementError
from flows.ledger.statistics import (
    LEVEL,
    MINIMUM_SEEDS,
    Measurement,
    Replicates,
    pair,
    replicates,
    shared_variance,
    t_quantile,
)

RANK_LEVEL = 0.99
"""Two entries differ in rank when their difference is significant at p < 1 - RANK_LEVEL."""

_SMALLEST_P = 1e-15  # below, the quantiles of Student's t are no longer exact, and nobody reads the difference

Better = Literal["higher", "lower"]
Pairing = Literal["seeds and items", "seeds", "items", "none"]


@dataclass(frozen=True)
class Spread:
    """How far a difference may be off, apart from the level.

    Attributes:
        seeds: Squared standard error over seeds.
        degrees: Its degrees of freedom.
        items: Variance that test items explain.
        samples: Number of test items.
    """

    seeds: float
    degrees: float
    items: float
    samples: int

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided interval at a level."""
        over_seeds = t_quantile(self.degrees, level) ** 2 * self.seeds if self.seeds > 0 else 0.0
        over_items = t_quantile(max(self.samples - 1, 1), level) ** 2 * self.items if self.items > 0 else 0.0
        return math.sqrt(over_seeds + over_items)


@dataclass(frozen=True)
class Comparison:
    """What separates two quantities of one metric at one condition.

    Attributes:
        difference: Mean of the left minus mean of the right, in the metric's unit; NaN where a side has no run.
        low: Lower end of its 95% interval, -inf where it is refused.
        high: Upper end, inf where it is refused.
        p_value: Two-sided p value of "no difference"; None where the interval is refused.
        improvement: Probability that a run of the left is better than a run of the right, 0 to 1, ties half.
        pairing: What pairs: "seeds and items", "seeds", "items" (two constants on the same items), or "none".
        by_seed: Difference at every common seed; empty where seeds do not pair.
        seeds: Runs behind the difference: common seeds, or the smaller side's where seeds do not pair.
        samples: Test items behind a run's value, the smaller number.
        refusal: Why there is no interval, in words; empty otherwise.
        spread: What the interval is made of; None where it is refused.
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    improvement: float
    pairing: Pairing
    by_seed: dict[int, float]
    seeds: int
    samples: int
    refusal: str = ""
    spread: Spread | None = None

    def significant(self, level: float = RANK_LEVEL) -> bool:
        """Whether zero lies outside the interval at a level: p < 1 - level."""
        return self.spread is not None and abs(self.difference) > self.spread.half_width(level)


def recorded(
    frame: pl.DataFrame, arm: str, metric: str, at: str = "", *, constant: bool = False, test_set: str = ""
) -> Replicates:
    """Read one quantity over its seeds from the `metrics.parquet` of a judged variant (see JUDGED_METRICS).

    The file holds means over test items, not the items: seeds pair with those of another quantity, items do not, and
    their variance counts on both sides. To pair items too, read the runs themselves with
    `Measurements(...).replicates(arm, metric, at)`, and compare only what was measured on one test set.

    Args:
        frame: Content of the file.
        arm: Arm of the paper.
        metric: Metric of its study.
        at: Condition as it is spelled there, such as "k=8".
        constant: Whether one evaluation stands for every seed (see `verdicts.constant_arms`).
        test_set: What makes the quantity unique among those it is compared with, such as "<slug>/<variant>".

    Raises:
        MeasurementError: No run of the arm has the metric at this condition.
    """
    rows = frame.filter((pl.col("arm") == arm) & (pl.col("metric") == metric) & (pl.col("at") == at))
    if rows.is_empty():
        raise MeasurementError(f"arm {arm!r} has no {metric} at {at or '(no condition)'} in these results.")
    return of_rows(rows, constant=constant, source=f"{test_set}\x00{arm}\x00{metric}\x00{at}")


def of_rows(rows: pl.DataFrame, *, constant: bool, source: str) -> Replicates:
    """Turn the rows of one arm, metric and condition into a quantity.

    Args:
        rows: In JUDGED_METRICS, one for each seed.
        constant: Whether one evaluation stands for every seed.
        source: Unique name of the quantity among those it is compared with.
    """
    measurements = [
        Measurement(seed, (), np.array([value]), samples, variance)
        for seed, value, samples, variance in sorted(rows.select("seed", "value", "samples", "variance").iter_rows())
    ]
    return replicates(measurements, constant=constant and len(measurements) == 1, source=source)


def compare(left: Replicates, right: Replicates, better: Better) -> Comparison:
    """Compare two quantities of one metric, condition, unit and test set.

    Args:
        left: One quantity over its runs.
        right: The other; the difference is `left - right`.
        better: Which direction is better, for the probability of improvement.
    """
    apart = _separation(left, right)
    known = not apart.refusal
    half = apart.spread.half_width() if known else math.inf
    return Comparison(
        difference=apart.value,
        low=apart.value - half if known else -math.inf,
        high=apart.value + half if known else math.inf,
        p_value=p_value(apart.value, apart.spread) if known else None,
        improvement=probability_of_improvement(left.values, right.values, better),
        pairing=_pairing(left, right, apart.by_seed is not None),
        by_seed=apart.by_seed or {},
        seeds=apart.seeds,
        samples=min(left.samples, right.samples),
        refusal=apart.refusal,
        spread=apart.spread if known else None,
    )


@dataclass(frozen=True)
class _Separation:
    """A difference and its spread; `by_seed` is None where seeds do not pair."""

    value: float
    spread: Spread
    seeds: int
    by_seed: dict[int, float] | None
    refusal: str

    def significant(self) -> bool:
        return not self.refusal and abs(self.value) > self.spread.half_width(RANK_LEVEL)


def _separation(left: Replicates, right: Replicates) -> _Separation:
    by_seed: dict[int, float] | None = None
    refusal = ""
    if left.constant and right.constant:
        one, other = pair(left, right)
        value, spread, seeds = float((one.values - other.values).mean()), _paired(one, other), 1
        refusal = "" if spread.items > 0 else "neither side has seeds or a known sampling variance"
    elif left.constant or right.constant or len(set(left.seeds) & set(right.seeds)) >= MINIMUM_SEEDS:
        one, other = pair(left, right)
        values = one.values - other.values
        value, spread, seeds = float(values.mean()), _paired(one, other), len(values)
        by_seed = dict(zip(one.seeds, values.tolist(), strict=True))
    else:
        value = float(left.values.mean() - right.values.mean())
        spread, seeds = _unpaired(left, right), min(len(left.values), len(right.values))
    if not (left.constant and right.constant) and seeds < MINIMUM_SEEDS:
        refusal = f"{seeds} seed{'' if seeds == 1 else 's'}; a comparison needs {MINIMUM_SEEDS} on each side"
    if not refusal and not math.isfinite(value):
        refusal = "a run's value is undefined"
    return _Separation(value, spread, seeds, by_seed, refusal)


def _pairing(left: Replicates, right: Replicates, seeds_pair: bool) -> Pairing:
    if not set(left.items).isdisjoint(right.items):
        return "seeds and items" if seeds_pair else "items"
    return "seeds" if seeds_pair else "none"


def _paired(one: Replicates, other: Replicates) -> Spread:
    """Spread of the difference of two quantities on the same seeds and items."""
    values, influence = one.values - other.values, one.influence - other.influence
    n = len(values)
    over_items = max(float(shared_variance(influence, influence)), 0.0) if n else math.inf
    over_seeds = float(values.var(ddof=1) / n) if n > 1 else 0.0
    return Spread(over_seeds, max(n - 1, 1), over_items, min(one.samples, other.samples))


def _unpaired(left: Replicates, right: Replicates) -> Spread:
    """Welch's standard error over seeds; common items pair, since every run of both sides saw them."""
    errors = [
        float(side.values.var(ddof=1) / len(side.values)) if len(side.values) > 1 else 0.0 for side in (left, right)
    ]
    total = sum(errors)
    shares = sum(
        error**2 / (len(side.values) - 1) for error, side in zip(errors, (left, right), strict=True) if error > 0
    )
    column = {item: index for index, item in enumerate(dict.fromkeys(left.items + right.items))}
    means = []
    for side in (left, right):
        mean = np.zeros(len(column))
        mean[[column[item] for item in side.items]] = side.influence.mean(0)
        means.append(mean)
    own = [float(shared_variance(side.influence, side.influence)) for side in (left, right)]
    over_items = max(own[0] + own[1] - 2 * float(means[0] @ means[1]), 0.0)
    return Spread(total, total**2 / shares if shares else 1.0, over_items, min(left.samples, right.samples))


def p_value(value: float, spread: Spread) -> float:
    """Two-sided p value: 1 - the level at which the interval around `value` ends at zero."""
    from scipy.optimize import brentq
    from scipy.special import stdtr, stdtrit

    if value == 0.0:
        return 1.0
    parts = ((spread.seeds, spread.degrees), (spread.items, max(spread.samples - 1, 1)))
    alone = [2 * float(stdtr(degrees, -abs(value) / math.sqrt(part))) for part, degrees in parts if part > 0]
    # With both parts the interval is wider at every level than with one of them, so p lies above each one's.
    lowest = max(alone, default=0.0)
    if len(alone) < 2 or lowest < _SMALLEST_P:
        return lowest

    def beyond(log_p: float) -> float:
        return sum(float(stdtrit(degrees, math.exp(log_p) / 2)) ** 2 * part for part, degrees in parts) - value**2

    return float(math.exp(brentq(beyond, math.log(lowest) - 1e-9, 0.0, xtol=1e-10)))


def probability_of_improvement(left: Sequence[float], right: Sequence[float], better: Better) -> float:
    """Share of all pairs of runs in which the left one is better, ties counting half; NaN where a side is empty."""
    one, other = np.asarray(left, dtype=float)[:, None], np.asarray(right, dtype=float)[None, :]
    if not one.size or not other.size:
        return math.nan
    wins = one > other if better == "higher" else one < other
    return float((wins + 0.5 * (one == other)).mean())


@dataclass(frozen=True)
class Rank:
    """Where one entry stands among those of its metric, condition, data and budget.

    Attributes:
        rank: 1 + the number of papers with a significantly better entry; None where it cannot be compared.
        behind: Positions of entries that are significantly better, one of each such paper.
        against_best: Comparison with the entry of the best mean; None for that entry itself.
    """

    rank: int | None
    behind: tuple[int, ...]
    against_best: Comparison | None


def ranks(entries: Sequence[Replicates], better: Better, papers: Sequence[Hashable] | None = None) -> list[Rank]:
    """Rank entries that were measured alike.

    Args:
        entries: The quantities.
        better: Which direction is better.
        papers: The paper of each entry, so that one with many arms counts once; each its own where this is None.

    Returns:
        One rank per entry, in their order. An entry without an interval (one seed) has none and lowers nobody's.
    """
    owners = list(range(len(entries))) if papers is None else list(papers)
    sign = 1.0 if better == "higher" else -1.0
    comparable = [has_interval(entry) for entry in entries]
    means = [sign * value for value in _means(entries, comparable)]
    # Entries with a rank come first: a single lucky seed is nobody's yardstick.
    best = max(range(len(entries)), key=lambda index: (comparable[index], means[index]), default=None)
    order = sorted(filter(comparable.__getitem__, range(len(entries))), key=means.__getitem__, reverse=True)
    found = []
    for index, entry in enumerate(entries):
        rivals = [other for other in order if means[other] > means[index]] if comparable[index] else []
        behind: dict[Hashable, int] = {}
        for other in rivals:
            if owners[other] in behind:
                continue
            apart = _separation(entries[other], entry)
            if apart.significant() and sign * apart.value > 0:
                behind[owners[other]] = other
        rank = 1 + len(behind) if comparable[index] else None
        against = compare(entry, entries[best], better) if index != best else None
        found.append(Rank(rank, tuple(behind.values()), against))
    return found


def _means(entries: Sequence[Replicates], comparable: Sequence[bool]) -> list[float]:
    """Mean of each entry, over the seeds that all of them have where these suffice: other seeds may be other data."""
    several = [entry for entry, able in zip(entries, comparable, strict=True) if able and not entry.constant]
    common = set.intersection(*(set(entry.seeds) for entry in several)) if several else set()
    found = []
    for entry in entries:
        chosen = [seed in common for seed in entry.seeds]
        enough = sum(chosen) >= MINIMUM_SEEDS and not entry.constant
        values = entry.values[np.array(chosen)] if enough else entry.values
        found.append(float(values.mean()))
    return found


def has_interval(entry: Replicates) -> bool:
    """Whether an entry can be ranked: three seeds, or a constant whose sampling variance is known."""
    return len(entry.values) >= MINIMUM_SEEDS or (entry.constant and bool(np.any(entry.influence)))
