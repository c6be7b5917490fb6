"""Claims judged on measurements: a test holds, fails or straddles its bar, and its claim gets one of four words.

A test turns measurements into an estimate with an interval and asks where the interval lies: wholly where the claim
wants it (holds), wholly elsewhere (fails), or across the bar (straddles). Words of claims: reproduced, contradicted,
inconclusive, out of scale; anything finer stands in the note.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from components.metrics.tables import condition
from flows.declarations.paper import (
    AllOf,
    Claim,
    Correlation,
    Difference,
    Equality,
    KOfN,
    Monotone,
    Paper,
    Ratio,
    Threshold,
)
from flows.ledger import statistics
from flows.ledger.measurements import MeasurementError, Measurements
from flows.ledger.statistics import Estimate

Standing = Literal["holds", "fails", "straddles"]
Verdict = Literal["reproduced", "contradicted", "inconclusive", "out of scale"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "contradicted", "inconclusive", "out of scale")


@dataclass(frozen=True)
class Outcome:
    """One test, evaluated.

    Attributes:
        test: The test as a sentence.
        estimate: The estimate and its interval.
        bar: The number the interval is compared with.
        accepts: Where the whole interval must lie, (low, high); infinite where open.
        standing: Whether it does.
        unit: Unit of the estimate.
        reason: Why it straddles, where the interval alone does not say it.
        note: The note declared with the test.
        group: Name of the group of tests this one belongs to; "" where it stands alone.
    """

    test: str
    estimate: Estimate
    bar: float
    accepts: tuple[float, float]
    standing: Standing
    unit: str
    reason: str = ""
    note: str = ""
    group: str = ""


@dataclass(frozen=True)
class Judgement:
    """One claim, judged.

    Attributes:
        claim: The claim.
        verdict: One of VERDICTS.
        outcomes: Its tests, in the order declared; empty where nothing was evaluated.
        gates: Its gates, likewise.
        note: What a reader must know beside the word.
    """

    claim: Claim
    verdict: Verdict
    outcomes: tuple[Outcome, ...] = ()
    gates: tuple[Outcome, ...] = ()
    note: str = ""


def claims_of(paper: Paper, variant: str) -> list[Claim]:
    """The claims that are judged in a variant, in the order of the file."""
    return [claim for claim in paper.claims if paper.variant_of(claim) == variant]


def constant_arms(paper: Paper) -> frozenset[str]:
    """Arms that train nothing and are evaluated with a single seed: their numbers do not depend on one."""
    return frozenset(
        name for name, arm in paper.arms.items() if paper.model_of(name) is None and arm.seeds and len(arm.seeds) == 1
    )


def judge_claim(claim: Claim, measurements: Measurements, profile: str) -> Judgement:
    """Evaluate a claim's gates and tests and find its word.

    Args:
        claim: The claim.
        measurements: What the runs of its variant measured.
        profile: "smoke", "small" or "full". Smoke evaluates every test, so that a wrong metric name is found in
            seconds, but judges nothing.

    Raises:
        MeasurementError: A test names a metric, arm or condition that was not measured.
    """
    if claim.scope == "full-only" and profile != "full":
        return Judgement(claim, "out of scale", note=f"Needs {claim.needs}" if claim.needs else "")
    gates = tuple(outcome for gate in claim.gates for outcome in _evaluate(gate, measurements))
    grouped = [tuple(_evaluate(test, measurements)) for test in claim.tests]
    outcomes = tuple(outcome for group in grouped for outcome in group)
    if profile == "smoke":
        return Judgement(claim, "inconclusive", outcomes, gates, "Smoke run: it checks the wiring and judges nothing.")
    verdict = _join(claim, [_all_hold([outcome.standing for outcome in group]) for group in grouped])
    notes = []
    closed = [gate for gate in gates if gate.standing != "holds"]
    if closed:
        verdict = "inconclusive"
        notes += [f"Gate not met: {gate.test} ({_measured(gate)})." for gate in closed]
    notes += [f"{outcome.test}: {outcome.reason}." for outcome in (*gates, *outcomes) if outcome.reason]
    return Judgement(claim, verdict, outcomes, gates, " ".join(notes))


def _measured(outcome: Outcome) -> str:
    estimate = outcome.estimate
    return spell_interval(estimate.value, estimate.low, estimate.high, outcome.unit)


def _all_hold(standings: Sequence[Standing]) -> Standing:
    if "fails" in standings:
        return "fails"
    return "straddles" if "straddles" in standings else "holds"


def _join(claim: Claim, standings: Sequence[Standing]) -> Verdict:
    """Three-valued join: decided as soon as the undecided tests can no longer change it."""
    if claim.join == "all_of":
        needed = len(standings)
    elif claim.join == "any_of":
        needed = 1
    else:
        assert isinstance(claim.join, KOfN)
        needed = claim.join.k_of_n
    holding, straddling = standings.count("holds"), standings.count("straddles")
    if holding >= needed:
        return "reproduced"
    return "contradicted" if holding + straddling < needed else "inconclusive"


def _evaluate(test: Any, measurements: Measurements) -> list[Outcome]:
    if isinstance(test, AllOf):
        members = [outcome for member in test.all_of for outcome in _evaluate(member, measurements)]
        return [replace(outcome, group=test.says) for outcome in members]
    try:
        return [_EVALUATORS[type(test)](test, measurements)]
    except MeasurementError as error:
        raise MeasurementError(f"test `{sentence(test)}`: {error}") from None


def _threshold(test: Threshold, measurements: Measurements) -> Outcome:
    quantity = measurements.replicates(test.arm, test.metric, test.at)
    return _against_bar(test, statistics.mean(quantity), measurements.unit(test.arm, test.metric, test.at))


def _difference(test: Difference, measurements: Measurements) -> Outcome:
    minus_at = test.at if test.minus_at is None else test.minus_at
    unit = _same_scale(measurements, test.metric, (test.arm, test.at), (test.minus, minus_at))
    quantity = statistics.difference(
        measurements.replicates(test.arm, test.metric, test.at),
        measurements.replicates(test.minus, test.metric, minus_at),
    )
    return _against_bar(test, statistics.mean(quantity), unit)


def _ratio(test: Ratio, measurements: Measurements) -> Outcome:
    over_at = test.at if test.over_at is None else test.over_at
    _same_scale(measurements, test.metric, (test.arm, test.at), (test.over, over_at))
    estimate = statistics.ratio(
        measurements.replicates(test.arm, test.metric, test.at),
        measurements.replicates(test.over, test.metric, over_at),
    )
    return _against_bar(test, estimate, "×")


def _equality(test: Equality, measurements: Measurements) -> Outcome:
    unit = measurements.unit(test.arm, test.metric, test.at)
    quantity = measurements.replicates(test.arm, test.metric, test.at)
    if test.equals_arm is None:
        centre = test.equals
    else:
        _same_scale(measurements, test.metric, (test.arm, test.at), (test.equals_arm, test.at))
        quantity = statistics.difference(quantity, measurements.replicates(test.equals_arm, test.metric, test.at))
        centre = 0.0
    accepts = (centre - test.within, centre + test.within)
    return _outcome(test, statistics.mean(quantity), centre, accepts, unit, strict=False)


def _monotone(test: Monotone, measurements: Measurements) -> Outcome:
    """The worst of the steps between neighbours, each turned so that the right way is positive.

    All steps must lie above the bar (minus the tolerance), which needs no correction for their number. For calling the
    claim wrong one step suffices, so there the level is shared among them (Bonferroni).
    """
    sign = 1 if test.direction == "increasing" else -1
    at = test.at or {}
    points = [measurements.replicates(test.arm, test.metric, {**at, test.along: value}) for value in test.values]
    steps = []
    for before, after in itertools.pairwise(points):
        step = statistics.difference(after, before)
        steps.append(replace(step, values=sign * step.values, influence=sign * step.influence))
    bar = -test.tolerance
    shared_level = 1 - (1 - statistics.LEVEL) / len(steps)
    estimates = [statistics.mean(step) for step in steps]
    wrong = [step for step in steps if statistics.mean(step, shared_level).high < bar]
    worst = min(estimates, key=lambda estimate: (estimate.low, estimate.value))
    if wrong:
        worst = min((statistics.mean(step, shared_level) for step in wrong), key=lambda estimate: estimate.high)
    outcome = _outcome(
        test, worst, bar, (bar, math.inf), measurements.unit(test.arm, test.metric, {**at, test.along: test.values[0]})
    )
    standing = "fails" if wrong else "straddles" if outcome.standing == "fails" else outcome.standing
    outcome = replace(outcome, standing=standing)
    return _on_every_seed(outcome, outcome.accepts, [estimate.by_seed for estimate in estimates], strict=False)


def _correlation(test: Correlation, measurements: Measurements) -> Outcome:
    if test.along is not None:
        conditions = measurements.along(test.arm, test.metric, test.along, test.at)
        points = [(float(at[test.along]), measurements.replicates(test.arm, test.metric, at)) for at in conditions]
        _enough_points(len(points), test.metric, f"values of {test.along}")
        quantity = statistics.correlation_along(points, test.method)
        return _against_bar(test, statistics.mean(quantity), "")
    left = measurements.measurements(test.arm, test.metric, test.at)
    right = measurements.measurements(test.arm, test.with_metric, test.at)
    pairs = list(zip(left, right, strict=True))
    for one, other in pairs:
        _enough_points(len(set(one.items) & set(other.items)), test.metric, f"test items also of {test.with_metric}")
    quantity = statistics.correlation_between(pairs, test.method, constant=measurements.is_constant(test.arm))
    return _against_bar(test, statistics.mean(quantity), "")


def _enough_points(count: int, metric: str, what: str) -> None:
    if count < 3:
        raise MeasurementError(f"{metric} has {count} {what}; a correlation needs at least 3.")


_EVALUATORS = {
    Threshold: _threshold,
    Difference: _difference,
    Ratio: _ratio,
    Equality: _equality,
    Monotone: _monotone,
    Correlation: _correlation,
}


def _same_scale(measurements: Measurements, metric: str, left, right) -> str:
    """Refuse to compare values in different units or with different normalisers; return the unit."""
    scales = [
        (measurements.unit(arm, metric, at), measurements.normaliser(arm, metric, at)) for arm, at in (left, right)
    ]
    if scales[0] != scales[1]:
        (one, per_one), (other, per_other) = [(unit or "no unit", per or "nothing") for unit, per in scales]
        raise MeasurementError(
            f"{metric} is measured in {one} divided by {per_one} for {left[0]} and in {other} divided by {per_other} "
            f"for {right[0]}; values compared must have the same unit and normaliser."
        )
    return scales[0][0]


def _against_bar(test: Any, estimate: Estimate, unit: str) -> Outcome:
    accepts = (test.above, math.inf) if test.above is not None else (-math.inf, test.below)
    bar = test.above if test.above is not None else test.below
    return _outcome(test, estimate, bar, accepts, unit, strict=True)


def _outcome(
    test: Any, estimate: Estimate, bar: float, accepts: tuple[float, float], unit: str, *, strict: bool = False
) -> Outcome:
    standing = "straddles" if estimate.refusal else _standing(estimate.low, estimate.high, accepts, strict)
    outcome = Outcome(sentence(test), estimate, bar, accepts, standing, unit, estimate.refusal, test.note)
    return _on_every_seed(outcome, _seed_bar(test, accepts), [estimate.by_seed], strict) if test.also else outcome


def _seed_bar(test: Any, accepts: tuple[float, float]) -> tuple[float, float]:
    bar = getattr(test, "seed_bar", None)
    if bar is None:
        return accepts
    return (bar, math.inf) if test.above is not None else (-math.inf, bar)


def _standing(low: float, high: float, accepts: tuple[float, float], strict: bool) -> Standing:
    """Where an interval lies; a strict bar is not part of what is accepted."""
    smallest, largest = accepts
    if strict:
        if low > smallest and high < largest:
            return "holds"
        return "fails" if high <= smallest or low >= largest else "straddles"
    if low >= smallest and high <= largest:
        return "holds"
    return "fails" if high < smallest or low > largest else "straddles"


def _on_every_seed(
    outcome: Outcome, accepts: tuple[float, float], by_seed: Sequence[dict[int, float]], strict: bool
) -> Outcome:
    """An extra condition, never sufficient: a seed on the wrong side turns holds into straddles, not into fails."""
    wrong = {
        seed
        for values in by_seed
        for seed, value in values.items()
        if _standing(value, value, accepts, strict) != "holds"
    }
    if outcome.standing != "holds" or not wrong:
        return outcome
    one = len(wrong) == 1
    reason = f"seed{'' if one else 's'} {', '.join(map(str, sorted(wrong)))} alone {'does' if one else 'do'} not pass"
    return replace(outcome, standing="straddles", reason=reason)


def sentence(test: Any) -> str:
    """Say a test in words: `psnr(tail_drop) − psnr(no_drop) at k=8 > 1.5, on every seed`."""
    if isinstance(test, AllOf):
        return test.says or " and ".join(sentence(member) for member in test.all_of)
    words = _WORDS[type(test)](test)
    if not test.also or isinstance(test, Monotone):
        return words
    bar = getattr(test, "seed_bar", None)
    return f"{words}, on every seed" if bar is None else f"{words}, on every seed {_relation(test, bar)}"


def _relation(test: Any, bar: float | None = None) -> str:
    if test.above is not None:
        return f"> {number(test.above if bar is None else bar)}"
    return f"< {number(test.below if bar is None else bar)}"


def _at(at: dict | None) -> str:
    return f" at {condition(at).replace(',', ', ')}" if at else ""


def _two_sided(test: Any, sign: str, other: str, other_at: dict | None) -> str:
    if other_at is None or other_at == test.at:
        return f"{test.metric}({test.arm}) {sign} {test.metric}({other}){_at(test.at)} {_relation(test)}"
    left, right = f"{test.arm}{_at(test.at)}", f"{other}{_at(other_at)}"
    return f"{test.metric}({left}) {sign} {test.metric}({right}) {_relation(test)}"


def _equality_words(test: Equality) -> str:
    right = number(test.equals) if test.equals_arm is None else f"{test.metric}({test.equals_arm})"
    return f"{test.metric}({test.arm}){_at(test.at)} = {right} ± {number(test.within)}"


def _monotone_words(test: Monotone) -> str:
    verb = "never falls" if test.direction == "increasing" else "never rises"
    tolerance = f" (tolerance {number(test.tolerance)})" if test.tolerance else ""
    values = ", ".join(map(str, test.values))
    return f"{test.metric}({test.arm}){_at(test.at)} {verb} along {test.along} = {values}{tolerance}, on every seed"


def _correlation_words(test: Correlation) -> str:
    partner = test.along if test.along is not None else test.with_metric
    return f"{test.method}({partner}, {test.metric}) of {test.arm}{_at(test.at)} {_relation(test)}"


_WORDS = {
    Threshold: lambda test: f"{test.metric}({test.arm}){_at(test.at)} {_relation(test)}",
    Difference: lambda test: _two_sided(test, "−", test.minus, test.minus_at),
    Ratio: lambda test: _two_sided(test, "/", test.over, test.over_at),
    Equality: _equality_words,
    Monotone: _monotone_words,
    Correlation: _correlation_words,
}


def number(value: float) -> str:
    """Spell a number for a reader: four significant digits, no needless zeros or exponents."""
    if not math.isfinite(value):
        return "−∞" if value < 0 else "∞" if value > 0 else "undefined"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.3g}", "")
        words = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    else:
        words = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return words.replace("-", "−")


def to_precision(value: float, spread: float) -> str:
    """Spell a number to the digits that its spread lets stand: two digits of the spread, `1.386 ± 0.133` as 1.39."""
    if not (math.isfinite(value) and math.isfinite(spread) and spread > 0):
        return number(value)
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    if decimals > 6 or abs(value) >= 1e6:
        return number(value)
    return f"{value:.{decimals}f}".replace("-", "−")


def spell_interval(value: float, low: float, high: float, unit: str) -> str:
    """Spell an estimate with its interval and unit: `2.31 [1.95, 2.67] dB`."""
    half = (high - low) / 2 if math.isfinite(high - low) else math.nan
    ends = f"[{to_precision(low, half)}, {to_precision(high, half)}]"
    return " ".join(part for part in (to_precision(value, half), ends, unit) if part)
