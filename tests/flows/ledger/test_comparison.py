"""Comparisons agree with textbook tests where those apply, and ranks tie what cannot be told apart."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from components.metrics.tables import MetricTable
from flows.ledger.comparison import compare, p_value, probability_of_improvement, ranks, recorded
from flows.ledger.measurements import MeasurementError, Measurements
from flows.ledger.statistics import Measurement, difference, mean, replicates

NORMAL = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))


def runs(values, seeds=None, *, source="", variance=None, samples=1000, constant=False):
    seeds = range(len(values)) if seeds is None else seeds
    measurements = [
        Measurement(seed, (), np.array([value]), samples, variance) for seed, value in zip(seeds, values, strict=True)
    ]
    return replicates(measurements, constant=constant, source=source)


def with_items(values, seeds=None, *, constant=False, first=0):
    """One row of per-item values per seed."""
    seeds = range(len(values)) if seeds is None else seeds
    measurements = [
        Measurement(seed, tuple(f"image {first + i}" for i in range(len(row))), np.asarray(row, float), len(row))
        for seed, row in zip(seeds, values, strict=True)
    ]
    return replicates(measurements, constant=constant, source="")


@given(st.lists(st.tuples(NORMAL, NORMAL), min_size=3, max_size=6))
def test_common_seeds_give_the_paired_t_test(pairs):
    left, right = np.array(pairs).T
    assume(np.ptp(left - right) > 1e-6)
    found = compare(runs(left, source="a"), runs(right, source="b"), "higher")
    truth = scipy.stats.ttest_rel(left, right)
    interval = truth.confidence_interval(0.95)
    assert found.pairing == "seeds"
    assert found.p_value == pytest.approx(truth.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)
    assert found.by_seed == pytest.approx(dict(enumerate(left - right)))


@given(st.lists(NORMAL, min_size=3, max_size=6), st.lists(NORMAL, min_size=3, max_size=6))
def test_seeds_that_do_not_meet_give_welchs_t_test(left, right):
    assume(np.ptp(left) > 1e-3 and np.ptp(right) > 1e-3)
    found = compare(runs(left, source="a"), runs(right, range(100, 100 + len(right)), source="b"), "higher")
    truth = scipy.stats.ttest_ind(left, right, equal_var=False)
    interval = truth.confidence_interval(0.95)
    assert found.pairing == "none"
    assert found.by_seed == {}
    assert found.p_value == pytest.approx(truth.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


@given(st.lists(NORMAL, min_size=3, max_size=5), st.floats(0.01, 50), st.integers(2, 500), st.floats(0.001, 20))
def test_the_p_value_is_the_level_at_which_the_interval_ends_at_zero(values, variance, samples, shift):
    value = abs(float(np.mean(values))) + shift
    spread = compare(
        runs(values, source="a", variance=variance, samples=samples),
        runs(np.zeros(len(values)), source="b", samples=samples),
        "higher",
    ).spread
    p = p_value(value, spread)
    assert 0 <= p <= 1
    if 1e-12 < p < 1 - 1e-9:
        assert spread.half_width(1 - p) == pytest.approx(value, rel=1e-4)


def test_two_constants_on_common_items_give_the_paired_t_test_over_items():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 12)) + rng.standard_normal(12)
    found = compare(with_items([left], constant=True), with_items([right], constant=True), "higher")
    truth = scipy.stats.ttest_rel(left, right)
    assert found.pairing == "items"
    assert found.p_value == pytest.approx(truth.pvalue)


def test_pairing_items_takes_out_what_the_items_have_in_common():
    rng = np.random.default_rng(1)
    hard = 5 * rng.standard_normal(200)
    left = [hard + 0.3 + 0.1 * rng.standard_normal(200) for _ in range(3)]
    right = [hard + 0.1 * rng.standard_normal(200) for _ in range(3)]
    paired = compare(with_items(left), with_items(right), "higher")
    apart = compare(with_items(left), with_items(right, first=1000), "higher")
    assert (paired.pairing, apart.pairing) == ("seeds and items", "seeds")
    assert paired.significant()
    assert not apart.significant()
    assert apart.low < 0 < paired.low < 0.3 < paired.high


@pytest.mark.parametrize("seeds", ["common", "apart"])
@pytest.mark.parametrize("shared_items", [True, False])
def test_intervals_cover_the_true_difference_about_as_often_as_they_say(seeds, shared_items):
    """Variance components: seeds 1, items 3 with a part that all runs share, 60 items, 3 and 4 runs."""
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(1500):
        items = rng.standard_normal((2, 60))
        if shared_items:
            items[1] = 0.8 * items[0] + 0.6 * items[1]
        draw = rng.standard_normal(7)
        left = [3 * items[0] + draw[i] + 0.5 * rng.standard_normal(60) for i in range(3)]
        right = [3 * items[1] + draw[3 + i] + 0.5 * rng.standard_normal(60) for i in range(4)]
        names = range(4) if seeds == "common" else range(50, 54)
        found = compare(with_items(left), with_items(right, names, first=0 if shared_items else 1000), "higher")
        covered.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.99


def test_the_difference_of_paired_runs_is_the_judges():
    rng = np.random.default_rng(2)
    left, right = with_items(rng.standard_normal((4, 30))), with_items(rng.standard_normal((4, 30)))
    judged, found = mean(difference(left, right)), compare(left, right, "higher")
    assert (found.difference, found.low, found.high) == pytest.approx((judged.value, judged.low, judged.high))


@given(st.lists(NORMAL, min_size=1, max_size=5), st.lists(NORMAL, min_size=1, max_size=5))
def test_the_probability_of_improvement_is_mann_whitneys_u_over_the_number_of_pairs(left, right):
    u = scipy.stats.mannwhitneyu(left, right).statistic
    found = probability_of_improvement(left, right, "higher")
    assert found == pytest.approx(u / (len(left) * len(right)))
    assert probability_of_improvement(left, right, "lower") == pytest.approx(1 - found)


@given(st.lists(st.tuples(NORMAL, NORMAL), min_size=3, max_size=5))
def test_swapping_the_sides_turns_the_difference_round(pairs):
    left, right = np.array(pairs).T
    one, other = (compare(*sides, "higher") for sides in itertools.permutations([runs(left), runs(right)]))
    assert (one.difference, one.low) == pytest.approx((-other.difference, -other.high))
    assert one.p_value == pytest.approx(other.p_value)
    assert one.improvement == pytest.approx(1 - other.improvement)


def test_too_few_seeds_are_refused_with_the_number_that_is_there():
    found = compare(runs([1.0]), runs([0.0, 0.1, 0.2]), "higher")
    assert (found.p_value, found.low, found.high) == (None, -math.inf, math.inf)
    assert "1 seed" in found.refusal
    assert not found.significant()
    constants = compare(runs([1.0], constant=True), runs([2.0], constant=True), "higher")
    assert "known sampling variance" in constants.refusal


def test_entries_that_cannot_be_told_apart_share_a_rank_and_one_seed_has_none():
    entries = [
        runs([10.0, 10.1, 9.9], source="a"),
        runs([10.05, 9.9, 10.2], source="b"),
        runs([8.0, 8.1, 7.9], source="c"),
        runs([50.0], source="d"),
    ]
    found = ranks(entries, "higher")
    assert [rank.rank for rank in found] == [1, 1, 3, None]
    assert set(found[2].behind) == {0, 1}
    assert found[0].against_best is not None  # the second has the best mean
    assert found[1].against_best is None
    assert [rank.rank for rank in ranks(entries, "lower")] == [2, 2, 1, None]


def test_a_paper_with_many_better_arms_costs_one_rank():
    entries = [runs([10.0 + i, 10.1 + i, 9.9 + i]) for i in range(3)] + [runs([1.0, 1.1, 0.9])]
    assert [rank.rank for rank in ranks(entries, "higher", ["a", "a", "a", "b"])] == [2, 2, 1, 2]
    assert [rank.rank for rank in ranks(entries, "higher")] == [3, 2, 1, 4]


@given(st.lists(st.lists(NORMAL, min_size=3, max_size=3), min_size=2, max_size=6))
def test_a_better_mean_is_never_ranked_behind_by_an_equal_or_worse_one(values):
    found = ranks([runs(row, source=str(index)) for index, row in enumerate(values)], "higher")
    for index, rank in enumerate(found):
        assert all(np.mean(values[other]) > np.mean(values[index]) for other in rank.behind)
    assert min(rank.rank for rank in found) == 1


def test_results_of_a_variant_are_read_like_the_runs_they_came_from_up_to_the_items(tmp_path):
    paths = {}
    for arm, gain in (("method", 1.0), ("baseline", 0.0)):
        for seed in range(3):
            table = MetricTable()
            rng = np.random.default_rng([seed, int(gain)])
            table.add_items("psnr", gain + rng.standard_normal(50), unit="dB", at={"k": 8})
            paths[arm, seed] = tmp_path / f"{arm}{seed}"
            paths[arm, seed].mkdir()
            table.write(paths[arm, seed])
    measured = Measurements(paths)
    frame = measured.frame()
    from_runs = [measured.replicates(arm, "psnr", {"k": 8}) for arm in ("method", "baseline")]
    from_results = [recorded(frame, arm, "psnr", "k=8", test_set="toy") for arm in ("method", "baseline")]
    items, means = compare(*from_runs, "higher"), compare(*from_results, "higher")
    assert means.difference == pytest.approx(items.difference)
    assert (items.pairing, means.pairing) == ("seeds and items", "seeds")
    assert means.spread.seeds == pytest.approx(items.spread.seeds)
    with pytest.raises(MeasurementError, match="no psnr at k=9"):
        recorded(frame, "method", "psnr", "k=9")
    assert isinstance(frame, pl.DataFrame)
