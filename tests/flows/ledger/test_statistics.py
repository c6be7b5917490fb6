"""Intervals on synthetic tables whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from flows.ledger.statistics import (
    Measurement,
    Replicates,
    correlation_along,
    correlation_between,
    difference,
    half_width,
    mean,
    ratio,
    replicates,
    shared_variance,
)

# Standard deviations (seed, item, seed x item) of a value; the seed part is divided by sqrt(items) below, so that
# none of the parts is negligible.
MIXTURES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.3, 1, 1), (1, 1, 1), (3, 1, 1), (0.2, 2, 1), (0.2, 0.5, 2)]
TABLES = 4000


def draw(rng, mixture, *, seeds, items, shared, tables=TABLES):
    """Synthetic tables with true mean 0, shape [tables, seeds, items]."""
    seed_part, item_part, rest = mixture
    shape = (tables, 1 if shared else seeds, items)
    return (
        seed_part / math.sqrt(items) * 3 * rng.standard_normal((tables, seeds, 1))
        + item_part * rng.standard_normal(shape)
        + rest * rng.standard_normal((tables, seeds, items))
    )


def arrays(values):
    """Values and influence of full tables, shape [tables, seeds] and [tables, seeds, items]."""
    items = values.shape[-1]
    means = values.mean(-1)
    return means, (values - means[..., None]) / math.sqrt(items * (items - 1))


def quantity(values, *, seeds=None, items=None, constant=False, source="a"):
    """Replicates of one table, shape [seeds, items]."""
    names = items or [f"item {index}" for index in range(values.shape[1])]
    rows = [
        Measurement(
            seed, tuple(names if isinstance(names[0], str) else names[row]), values[row], samples=values.shape[1]
        )
        for row, seed in enumerate(seeds or range(len(values)))
    ]
    return replicates(rows, constant=constant, source=source)


@pytest.mark.parametrize("shared", [True, False], ids=["shared items", "separate items"])
@pytest.mark.parametrize("items", [8, 60])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_the_true_mean_in_93_to_99_percent_of_tables(seeds, items, shared):
    rng = np.random.default_rng(seeds * 1000 + items)
    for mixture in MIXTURES:
        means, influence = arrays(draw(rng, mixture, seeds=seeds, items=items, shared=shared))
        if not shared:
            # Separate items are separate columns: nothing pairs.
            assert np.allclose(shared_variance(spread(influence[:5]), spread(influence[:5])), 0.0)
            influence = influence[..., :0]
        covered = np.mean(np.abs(means.mean(-1)) <= half_width(means, influence, items))
        assert 0.93 <= covered <= 0.99, (mixture, covered)


def spread(influence):
    """Give each seed its own columns, shape [tables, seeds, seeds * items]."""
    tables, seeds, items = influence.shape
    out = np.zeros((tables, seeds, seeds, items))
    for seed in range(seeds):
        out[:, seed, seed] = influence[:, seed]
    return out.reshape(tables, seeds, seeds * items)


def test_separate_items_that_carry_the_same_names_by_accident_are_still_covered():
    rng = np.random.default_rng(5)
    for seeds in (3, 5, 10):
        for mixture in MIXTURES:
            means, influence = arrays(draw(rng, mixture, seeds=seeds, items=60, shared=False))
            covered = np.mean(np.abs(means.mean(-1)) <= half_width(means, influence, 60))
            assert 0.93 <= covered <= 0.99, (seeds, mixture, covered)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_null_difference_between_two_arms_is_accepted_in_at_most_five_percent_of_tables(seeds):
    rng = np.random.default_rng(seeds)
    for shared in (True, False):
        for mixture in MIXTURES:
            left = draw(rng, mixture, seeds=seeds, items=40, shared=shared, tables=2000)
            right = draw(rng, mixture, seeds=seeds, items=40, shared=shared, tables=2000)
            means, influence = arrays(left - right)
            accepted = np.mean(means.mean(-1) - half_width(means, influence, 40) > 0)
            assert accepted <= 0.05, (shared, mixture, accepted)


def test_with_one_item_draw_per_seed_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    estimate = mean(
        replicates([Measurement(i, (), values[i : i + 1], 10) for i in range(4)], constant=False, source="")
    )
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-12)


def test_identical_seeds_leave_the_interval_of_their_common_items():
    items = np.random.default_rng(0).standard_normal(25)
    estimate = mean(quantity(np.stack([items] * 3)))
    low, high = stats.t.interval(0.95, 24, loc=items.mean(), scale=stats.sem(items))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-12)


def test_partly_common_items_give_the_covariance_of_the_common_part():
    rng = np.random.default_rng(3)
    tables, items, common = 20000, 30, 10
    shared = rng.standard_normal((tables, 1, common))
    values = np.concatenate([np.repeat(shared, 3, axis=1), rng.standard_normal((tables, 3, items - common))], axis=2)
    means = values.mean(-1)
    influence = (values - means[..., None]) / math.sqrt(items * (items - 1))
    columns = np.zeros((tables, 3, common + 3 * (items - common)))
    columns[..., :common] = influence[..., :common]
    for seed in range(3):
        start = common + seed * (items - common)
        columns[:, seed, start : start + items - common] = influence[:, seed, common:]
    assert shared_variance(columns, columns).mean() == pytest.approx(common / items**2, rel=0.05)
    assert np.mean(means[:, 0] * means[:, 1]) == pytest.approx(common / items**2, rel=0.1)


def test_items_pair_by_name_whatever_their_order():
    rng = np.random.default_rng(1)
    base = rng.standard_normal((3, 50))
    names = [f"image {index}" for index in range(50)]
    order = rng.permutation(50)
    shifted = quantity(base[:, order] + 0.5, items=[names[index] for index in order])
    estimate = mean(difference(shifted, quantity(base, items=names)))
    assert estimate.value == pytest.approx(0.5)
    assert estimate.high - estimate.low < 1e-9


def test_pairing_narrows_a_difference_and_unpaired_items_do_not():
    rng = np.random.default_rng(2)
    common = rng.standard_normal((1, 200)) * 5
    left, right = common + 0.1 * rng.standard_normal((3, 200)), common + 0.1 * rng.standard_normal((3, 200))
    paired = mean(difference(quantity(left), quantity(right)))
    other = [f"other {index}" for index in range(200)]
    unpaired = mean(difference(quantity(left), quantity(right, items=other)))
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


def test_a_constant_stands_beside_every_seed_of_the_other_arm():
    rng = np.random.default_rng(4)
    images = rng.standard_normal(12)
    codec = images + 1.0
    left = images + 0.01 * rng.standard_normal((4, 12))
    right = quantity(codec[None], constant=True)
    forward, backward = difference(quantity(left), right), difference(right, quantity(left))
    assert forward.values == pytest.approx(left.mean(1) - codec.mean())
    assert backward.values == pytest.approx(-forward.values)
    assert mean(forward).seeds == 4
    # Image noise is common to both sides and cancels; the codec's constant adds none of its own.
    assert mean(forward).high - mean(forward).low < 0.05


def test_a_constant_difference_of_two_constants_needs_no_seeds():
    images = np.random.default_rng(6).standard_normal(30)
    estimate = mean(difference(quantity(images[None] + 2, constant=True), quantity(images[None], constant=True)))
    assert (estimate.value, estimate.refusal, estimate.seeds) == (pytest.approx(2.0), "", 1)


def test_fewer_than_three_seeds_are_refused_with_the_number_had():
    estimate = mean(quantity(np.ones((2, 5))))
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert "only 2 paired seeds" in estimate.refusal


def test_seeds_that_only_one_arm_has_are_dropped():
    estimate = mean(difference(quantity(np.ones((5, 4))), quantity(np.zeros((3, 4)), seeds=[1, 2, 7])))
    assert list(estimate.by_seed) == [1, 2]
    assert "only 2 paired seeds" in estimate.refusal


def test_a_ratio_is_a_ratio_of_means_never_a_mean_of_ratios():
    left, right = np.array([[1.0], [10.0], [100.0]]), np.array([[1.0], [1.0], [10.0]])
    estimate = ratio(quantity(left), quantity(right))
    assert estimate.value == pytest.approx(111 / 12)
    assert estimate.by_seed == pytest.approx({0: 1.0, 1: 10.0, 2: 10.0})


def test_fiellers_ends_are_where_the_difference_test_changes_its_mind():
    rng = np.random.default_rng(8)
    common = rng.standard_normal((1, 80))
    left = 6 + common + rng.standard_normal((3, 80))
    right = 2 + 0.3 * common + 0.5 * rng.standard_normal((3, 80))
    estimate = ratio(quantity(left), quantity(right))
    for end in (estimate.low, estimate.high):
        edge = mean(difference(quantity(left), quantity(end * right)))
        assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0.0, abs=1e-9)
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_ratio_interval_covers_the_true_ratio(seeds):
    rng = np.random.default_rng(seeds)
    inside = []
    for _ in range(600):
        common = rng.standard_normal((1, 30))
        left = 5 + 2 * common + rng.standard_normal((seeds, 30)) + 0.3 * rng.standard_normal((seeds, 1))
        right = 2 + common + rng.standard_normal((seeds, 30)) * 0.5 + 0.1 * rng.standard_normal((seeds, 1))
        estimate = ratio(quantity(left), quantity(right))
        inside.append(estimate.low <= 2.5 <= estimate.high)
    assert 0.93 <= np.mean(inside) <= 0.99


def test_a_ratio_over_something_indistinguishable_from_zero_is_unbounded_and_says_so():
    estimate = ratio(quantity(np.full((3, 1), 5.0)), quantity(np.array([[0.1], [-0.1], [0.05]])))
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert "denominator" in estimate.refusal
    zero = ratio(quantity(np.full((3, 1), 5.0)), quantity(np.zeros((3, 1))))
    assert math.isnan(zero.value)
    assert "zero" in zero.refusal


def test_a_whole_set_variance_enters_once_and_is_not_thinned_by_seeds():
    rows = [Measurement(seed, (), np.array([2.0]), samples=1000, variance=0.04) for seed in range(5)]
    estimate = mean(replicates(rows, constant=False, source="fd"))
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.2, rel=2e-3)


def test_whole_set_variances_of_two_arms_add():
    arms = [
        replicates([Measurement(s, (), np.array([v]), 10_000, 0.04) for s in range(3)], constant=False, source=name)
        for name, v in [("a", 1.0), ("b", 0.0)]
    ]
    estimate = mean(difference(*arms))
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * math.sqrt(0.08), rel=1e-3)


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlations_equal_scipys_on_every_seed(method):
    rng = np.random.default_rng(9)
    curve = rng.standard_normal((3, 7, 20)) - np.arange(7)[None, :, None]
    points = [(float(position), quantity(curve[:, position])) for position in range(7)]
    result = correlation_along(points, method)
    peer = stats.spearmanr if method == "spearman" else stats.pearsonr
    for seed in range(3):
        assert result.values[seed] == pytest.approx(peer(np.arange(7), curve[seed].mean(-1))[0])
    pairs = [(measured(left), measured(right)) for left, right in zip(curve[:, 0], curve[:, 1], strict=True)]
    between = correlation_between(pairs, method, constant=False)
    for seed in range(3):
        assert between.values[seed] == pytest.approx(peer(curve[seed, 0], curve[seed, 1])[0])


def measured(values):
    return Measurement(0, tuple(str(index) for index in range(len(values))), values, len(values))


def test_the_interval_of_an_item_correlation_covers_the_truth_when_seeds_share_their_items():
    rng = np.random.default_rng(10)
    inside = []
    for _ in range(250):
        left = rng.standard_normal(80)
        right = 0.6 * left + 0.8 * rng.standard_normal(80)
        noise = 1e-3 * rng.standard_normal((3, 80))
        pairs = [(measured(left + extra), measured(right)) for extra in noise]
        estimate = mean(correlation_between(pairs, "pearson", constant=False))
        inside.append(estimate.low <= 0.6 <= estimate.high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_a_correlation_of_a_flat_curve_is_refused_and_its_interval_stays_inside_minus_one_to_one():
    flat = correlation_along([(float(p), quantity(np.ones((3, 4)))) for p in range(5)], "spearman")
    assert "does not vary" in mean(flat).refusal
    rng = np.random.default_rng(11)
    noisy = correlation_along([(float(p), quantity(rng.standard_normal((3, 4)))) for p in range(5)], "spearman")
    assert -1.0 <= mean(noisy).low <= mean(noisy).high <= 1.0


def test_an_empty_pairing_is_refused_not_crashed():
    left, right = quantity(np.ones((3, 2)), seeds=[0, 1, 2]), quantity(np.ones((3, 2)), seeds=[3, 4, 5])
    assert "only 0 paired seeds" in mean(difference(left, right)).refusal
    assert "only 0 paired seeds" in ratio(left, right).refusal
    assert isinstance(difference(left, right), Replicates)
