"""Tests of claims against tables whose answer is known, and the words that follow."""

import numpy as np
import pytest

from components.metrics.tables import MetricTable
from flows.ledger.measurements import MeasurementError, Measurements
from flows.ledger.verdicts import constant_arms, judge_claim, number

IMAGES = 40


@pytest.fixture
def judged(make_paper, make_context):
    """Judge one claim of the toy paper on runs filled by a function."""

    def run(fill, *, profile="small", seeds=None, **claim):
        paper = make_paper([{"id": "claim", **claim}])
        context = make_context(paper, fill, profile=profile, seeds=seeds)
        measurements = Measurements(context.evaluations, constant_arms(paper))
        return judge_claim(paper.claims[0], measurements, profile)

    return run


def images(seed, offset=0.0, spread=1.0):
    """Values of the same images for every arm and seed, a little noise per seed, and an offset."""
    shared = np.random.default_rng(99).standard_normal(IMAGES) * spread
    own = np.random.default_rng([seed, int(offset * 100)]).standard_normal(IMAGES)
    return shared + 0.05 * own + offset


def quality(offsets, metric="psnr", at=None, unit="dB"):
    """Fill every arm with the same images, each arm shifted by its offset."""

    def fill(table: MetricTable, arm: str, seed: int) -> None:
        table.add_items(metric, images(seed, offsets.get(arm, 0.0)), unit=unit, at=at)

    return fill


DIFFERENCE = {"metric": "psnr", "arm": "method", "minus": "baseline"}


@pytest.mark.parametrize(
    "test, verdict",
    [
        (DIFFERENCE | {"above": 1.5}, "reproduced"),
        (DIFFERENCE | {"above": 2.5}, "contradicted"),
        (DIFFERENCE | {"above": 2.0}, "inconclusive"),
        (DIFFERENCE | {"below": 2.5}, "reproduced"),
        (DIFFERENCE | {"below": 1.5}, "contradicted"),
        ({"metric": "psnr", "arm": "method", "above": 20}, "reproduced"),
        ({"metric": "psnr", "arm": "method", "below": 20}, "contradicted"),
        ({"metric": "psnr", "arm": "method", "equals": 22, "within": 1}, "reproduced"),
        ({"metric": "psnr", "arm": "method", "equals": 25, "within": 1}, "contradicted"),
        ({"metric": "psnr", "arm": "method", "equals": 22, "within": 0.001}, "inconclusive"),
        ({"metric": "psnr", "arm": "method", "equals_arm": "baseline", "within": 2.1}, "reproduced"),
        ({"metric": "psnr", "arm": "method", "equals_arm": "baseline", "within": 1.9}, "contradicted"),
        ({"metric": "psnr", "arm": "method", "over": "baseline", "above": 1.05}, "reproduced"),
        ({"metric": "psnr", "arm": "method", "times": "baseline", "below": 1.05}, "contradicted"),
    ],
    ids=str,
)
def test_an_interval_above_below_or_across_its_bar_decides_the_word(judged, test, verdict):
    judgement = judged(quality({"method": 22.0, "baseline": 20.0}), tests=[test])
    assert judgement.verdict == verdict


def test_the_estimate_of_a_difference_is_paired_and_named_in_a_sentence(judged):
    judgement = judged(quality({"method": 22.0, "baseline": 20.0}), tests=[DIFFERENCE | {"above": 1.5}])
    (outcome,) = judgement.outcomes
    assert outcome.test == "psnr(method) − psnr(baseline) > 1.5"
    assert outcome.estimate.value == pytest.approx(2.0, abs=0.01)
    assert outcome.estimate.high - outcome.estimate.low < 0.1  # unpaired it would be above 0.8
    assert (outcome.unit, outcome.estimate.seeds, outcome.estimate.samples) == ("dB", 3, IMAGES)


def test_conditions_are_compared_across_when_the_second_has_its_own(judged):
    def fill(table, arm, seed):
        for size, error in ((1, 0.4), (16, 0.1)):
            table.add("mae", error + 0.001 * seed, unit="probability", at={"size": size}, samples=1600)

    test = {"metric": "mae", "arm": "method", "at": {"size": 16}, "over": "method", "over_at": {"size": 1}}
    judgement = judged(fill, tests=[test | {"below": 0.7}])
    assert judgement.verdict == "reproduced"
    assert judgement.outcomes[0].test == "mae(method at size=16) / mae(method at size=1) < 0.7"
    assert judgement.outcomes[0].estimate.value == pytest.approx(0.101 / 0.401)


def test_every_seed_is_an_extra_condition_and_never_sufficient(judged):
    def fill(table, arm, seed):
        table.add(
            "score", {"method": [3.0, 3.1, 3.05], "single": [9.0]}.get(arm, [0.9, 1.2, 1.1])[seed], unit="", samples=1
        )

    every_seed = {"metric": "score", "arm": "method", "above": 2.5, "also": "every seed"}
    assert judged(fill, tests=[every_seed]).verdict == "reproduced"
    strict = judged(fill, tests=[every_seed | {"seed_bar": 3.02}])
    assert strict.verdict == "inconclusive"
    assert strict.outcomes[0].test == "score(method) > 2.5, on every seed > 3.02"
    assert "seed 0 alone does not pass" in strict.note
    # All three seeds lie above the bar, but three seeds scattered like this do not prove a mean above it.
    scattered = {"metric": "score", "arm": "baseline", "above": 0.8, "also": "every seed"}
    assert judged(fill, tests=[scattered]).verdict == "inconclusive"


@pytest.mark.parametrize(
    "join, verdict",
    [
        ("all_of", "contradicted"),
        ("any_of", "reproduced"),
        ({"k_of_n": 1}, "reproduced"),
        ({"k_of_n": 2}, "inconclusive"),
        ({"k_of_n": 3}, "contradicted"),
    ],
    ids=str,
)
def test_joins_decide_as_soon_as_the_open_tests_cannot_change_them(judged, join, verdict):
    holds, straddles, fails = (DIFFERENCE | {"above": bar} for bar in (1.5, 2.0, 2.5))
    judgement = judged(quality({"method": 22.0, "baseline": 20.0}), join=join, tests=[holds, straddles, fails])
    assert [outcome.standing for outcome in judgement.outcomes] == ["holds", "straddles", "fails"]
    assert judgement.verdict == verdict


def test_any_of_is_contradicted_only_when_nothing_can_hold_any_more(judged):
    straddles, fails = (DIFFERENCE | {"above": bar} for bar in (2.0, 2.5))
    fill = quality({"method": 22.0, "baseline": 20.0})
    assert judged(fill, join="any_of", tests=[straddles, fails]).verdict == "inconclusive"
    assert judged(fill, join="any_of", tests=[fails, fails]).verdict == "contradicted"


def test_a_group_counts_as_one_test_in_the_join(judged):
    holds, fails = (DIFFERENCE | {"above": bar} for bar in (1.5, 2.5))
    won = {"says": "budget won", "all_of": [holds, holds]}
    lost = {"says": "budget lost", "all_of": [holds, fails]}
    fill = quality({"method": 22.0, "baseline": 20.0})
    judgement = judged(fill, join={"k_of_n": 2}, tests=[won, won, lost])
    assert judgement.verdict == "reproduced"
    assert [outcome.group for outcome in judgement.outcomes] == ["budget won"] * 4 + ["budget lost"] * 2
    assert judged(fill, join={"k_of_n": 2}, tests=[won, lost, lost]).verdict == "contradicted"


def test_a_gate_that_does_not_hold_makes_even_a_failing_claim_inconclusive_and_is_named(judged):
    fill = quality({"method": 22.0, "baseline": 20.0})
    gate = {"metric": "psnr", "arm": "baseline", "above": 30, "also": "every seed"}
    judgement = judged(fill, gates=[gate], tests=[DIFFERENCE | {"above": 2.5}])
    assert judgement.verdict == "inconclusive"
    assert "Gate not met: psnr(baseline) > 30, on every seed (" in judgement.note
    open_gate = judged(fill, gates=[gate | {"above": 15}], tests=[DIFFERENCE | {"above": 1.5}])
    assert open_gate.verdict == "reproduced"


def curve(values):
    def fill(table, arm, seed):
        for k, value in values.items():
            table.add_items("psnr", images(seed + 17 * k, value), unit="dB", at={"k": k})

    return fill


MONOTONE = {"metric": "psnr", "arm": "method", "along": "k", "values": [1, 2, 4], "direction": "increasing"}


def test_a_rising_curve_is_monotone_a_falling_one_is_not_and_a_flat_one_needs_its_tolerance(judged):
    assert judged(curve({1: 1.0, 2: 2.0, 4: 3.0}), tests=[MONOTONE]).verdict == "reproduced"
    assert judged(curve({1: 1.0, 2: 2.0, 4: 1.5}), tests=[MONOTONE]).verdict == "contradicted"
    flat = curve({1: 1.0, 2: 2.0, 4: 2.0})
    assert judged(flat, tests=[MONOTONE]).verdict == "inconclusive"
    assert judged(flat, tests=[MONOTONE | {"tolerance": 0.1}]).verdict == "reproduced"
    falling = MONOTONE | {"direction": "decreasing"}
    judgement = judged(curve({1: 3.0, 2: 2.0, 4: 1.0}), tests=[falling])
    assert judgement.verdict == "reproduced"
    assert judgement.outcomes[0].test == "psnr(method) never rises along k = 1, 2, 4, on every seed"


def test_one_seed_that_falls_keeps_a_curve_from_being_monotone(judged):
    def fill(table, arm, seed):
        for k in (1, 2, 4):
            table.add(
                "psnr",
                float(k) - (0.9 if (seed, k) == (2, 4) and arm == "method" else 0.0),
                unit="dB",
                at={"k": k},
                samples=1,
            )

    dip = MONOTONE | {"values": [2, 4], "tolerance": 0.5}
    assert judged(fill, tests=[dip]).verdict == "reproduced"

    def with_a_fall(table, arm, seed):
        for k in (1, 2, 4):
            table.add("psnr", float(k) - (2.7 if (seed, k) == (2, 4) else 0.0), unit="dB", at={"k": k}, samples=1)

    judgement = judged(with_a_fall, tests=[dip])
    assert judgement.verdict == "inconclusive"


def test_a_correlation_along_a_key_and_with_another_metric(judged):
    rng = np.random.default_rng(0)

    def fill(table, arm, seed):
        for position in range(8):
            table.add_items(
                "contribution", 8.0 - position + 0.1 * rng.standard_normal(20), unit="", at={"position": position}
            )
        blur = rng.standard_normal(200)
        table.add_items("blur", blur, unit="")
        table.add_items("error", 2 * blur + rng.standard_normal(200), unit="")

    along = {"metric": "contribution", "arm": "method", "along": "position", "below": -0.7}
    judgement = judged(fill, tests=[along])
    assert judgement.verdict == "reproduced"
    assert judgement.outcomes[0].estimate.value == pytest.approx(-1.0)
    assert judgement.outcomes[0].test == "spearman(position, contribution) of method < −0.7"
    between = {"metric": "error", "arm": "method", "with": "blur", "method": "pearson", "above": 0.7}
    assert judged(fill, tests=[between]).verdict == "reproduced"
    assert judged(fill, tests=[between | {"above": 0.97}]).verdict == "contradicted"


def test_two_seeds_are_never_enough_and_the_note_says_so(judged):
    fill = quality({"method": 22.0, "baseline": 20.0})
    judgement = judged(fill, seeds={"method": (0, 1)}, tests=[DIFFERENCE | {"above": 1.5}])
    assert judgement.verdict == "inconclusive"
    assert "only 2 paired seeds" in judgement.note


def test_a_deterministic_arm_is_a_constant_but_a_trained_arm_with_one_seed_is_not(judged):
    fill = quality({"method": 22.0, "codec": 20.0, "single": 20.0})
    assert judged(fill, tests=[DIFFERENCE | {"minus": "codec", "above": 1.5}]).verdict == "reproduced"
    assert judged(fill, tests=[{"metric": "psnr", "arm": "codec", "above": 15}]).verdict == "reproduced"
    once = judged(fill, tests=[DIFFERENCE | {"minus": "single", "above": 1.5}])
    assert once.verdict == "inconclusive"
    assert "only 1 paired seed;" in once.note


def test_an_exact_value_of_a_constant_arm_holds_with_an_interval_of_no_width(judged):
    def fill(table, arm, seed):
        table.add("mae", 1e-12, unit="probability", samples=100)

    judgement = judged(fill, tests=[{"metric": "mae", "arm": "codec", "below": 1e-9}])
    assert judgement.verdict == "reproduced"
    assert judgement.outcomes[0].estimate.low == judgement.outcomes[0].estimate.high == 1e-12


@pytest.mark.parametrize(
    "test, message",
    [
        (DIFFERENCE | {"metric": "psmr", "above": 1}, r"no metric 'psmr'.*Did you mean 'psnr'"),
        (
            DIFFERENCE | {"minus": "baselin", "above": 1},
            r"the arm 'baselin' was not evaluated.*Did you mean 'baseline'",
        ),
        (DIFFERENCE | {"at": {"k": 4}, "above": 1}, r"psnr was not measured at k=4; it was at \(no condition\)"),
        ({"metric": "psnr", "arm": "method", "along": "k", "above": 0}, r"psnr was not measured at k=\.\.\."),
    ],
)
def test_a_metric_arm_or_condition_nobody_measured_is_an_error_that_names_it(judged, test, message):
    with pytest.raises(MeasurementError, match=message) as error:
        judged(quality({"method": 22.0}), tests=[test])
    assert "test `" in str(error.value)


def test_values_in_different_units_or_with_different_normalisers_are_not_compared(judged):
    def fill(table, arm, seed):
        per = "tokens" if arm == "method" else "characters"
        table.add("loss", 1.0 + seed, unit="nats", samples=1, normaliser=per)

    with pytest.raises(MeasurementError, match="divided by tokens for method and in nats divided by characters"):
        judged(fill, tests=[{"metric": "loss", "arm": "method", "minus": "baseline", "above": 0}])


def test_a_full_only_claim_is_out_of_scale_with_its_needs_and_reads_no_measurement(judged):
    claim = {
        "scope": "full-only",
        "needs": "ImageNet and eight GPUs.",
        "tests": [DIFFERENCE | {"metric": "gfid", "below": 3}],
    }
    judgement = judged(quality({}), **claim)
    assert (judgement.verdict, judgement.outcomes) == ("out of scale", ())
    assert judgement.note == "Needs ImageNet and eight GPUs."
    with pytest.raises(MeasurementError, match="no metric 'gfid'"):
        judged(quality({}), profile="full", **claim)


def test_a_smoke_run_checks_the_wiring_and_judges_nothing(judged):
    fill = quality({"method": 22.0, "baseline": 20.0})
    once = {arm: (0,) for arm in ("method", "baseline")}
    judgement = judged(fill, profile="smoke", seeds=once, tests=[DIFFERENCE | {"above": 1.5}])
    assert judgement.verdict == "inconclusive"
    assert judgement.note.startswith("Smoke run")
    with pytest.raises(MeasurementError, match="no metric 'ssim'"):
        judged(fill, profile="smoke", seeds=once, tests=[DIFFERENCE | {"metric": "ssim", "above": 0}])


def test_a_null_effect_is_called_reproduced_in_at_most_five_percent_of_whole_runs(make_paper, make_context):
    """End to end on tables: arms that differ by nothing, shared images, 3 seeds."""
    paper = make_paper([{"id": "claim", "tests": [DIFFERENCE | {"above": 0.0}]}])
    rng = np.random.default_rng(7)
    runs = 150

    def fill(table, arm, seed):
        for run in range(runs):
            shared = np.random.default_rng(run).standard_normal(12)
            own = 0.3 * rng.standard_normal() + 0.5 * rng.standard_normal(12)
            table.add_items("psnr", shared + own, unit="dB", at={"run": run})

    context = make_context(paper, fill)
    measurements = Measurements(context.evaluations, constant_arms(paper))
    verdicts = []
    for run in range(runs):
        test = paper.claims[0].tests[0].model_copy(update={"at": {"run": run}})
        verdicts.append(
            judge_claim(paper.claims[0].model_copy(update={"tests": (test,)}), measurements, "small").verdict
        )
    assert verdicts.count("reproduced") <= 0.05 * runs
    assert verdicts.count("contradicted") <= 0.05 * runs


def test_per_item_rows_beside_a_whole_set_row_and_items_given_twice_are_refused(make_paper, make_context):
    paper = make_paper()

    def twice(table, arm, seed):
        table.add_items("psnr", [1.0, 2.0], unit="dB", items=["a", "a"])

    with pytest.raises(MeasurementError, match="test item 'a' twice"):
        Measurements(make_context(paper, twice).evaluations)


@pytest.mark.parametrize(
    "value, words",
    [
        (2.3456789, "2.346"),
        (-0.5, "−0.5"),
        (1e-9, "1e−9"),
        (123456.7, "123457"),
        (0.0, "0"),
        (1.23e7, "1.23e7"),
        (20.0, "20"),
    ],
)
def test_numbers_are_spelled_for_readers(value, words):
    assert number(value) == words
