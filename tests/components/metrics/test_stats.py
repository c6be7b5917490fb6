"""Rank correlation and jackknife against scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats as peer

from components.metrics.stats import (
    StatisticsError,
    grouped_jackknife,
    jackknife_influence,
    jackknife_variance,
    spearman,
)


def test_spearman_agrees_with_scipy_also_with_ties():
    generator = np.random.default_rng(0)
    for _ in range(10):
        first, second = generator.integers(0, 6, 20), generator.normal(size=20)
        assert spearman(first, second) == pytest.approx(peer.spearmanr(first, second).statistic)


def test_spearman_with_a_constant_is_no_correlation():
    assert spearman(np.ones(5), np.arange(5)) == 0.0
    with pytest.raises(StatisticsError):
        spearman(np.arange(3), np.arange(4))


def test_of_a_mean_the_influence_rows_are_the_items_themselves():
    items = np.random.default_rng(0).normal(size=9)
    without = (items.sum() - items) / 8
    np.testing.assert_allclose(jackknife_influence(items.mean(), without), items)
    assert jackknife_variance(items.mean(), without) == pytest.approx(items.var(ddof=1) / 9)


def test_the_mean_of_the_rows_is_the_statistic_whatever_it_is():
    items = np.random.default_rng(1).normal(size=7)
    value = np.median(items) ** 3
    without = np.array([np.median(np.delete(items, index)) ** 3 for index in range(7)])
    rows = jackknife_influence(value, without)
    assert rows.mean() == pytest.approx(value)
    centred = without - without.mean()
    assert jackknife_variance(value, without) == pytest.approx(6 / 7 * (centred**2).sum())


def test_a_grouped_jackknife_leaves_out_blocks_of_rows():
    items = np.random.default_rng(2).normal(size=20)
    value, variance = grouped_jackknife(lambda rows: items[rows].mean(), 20, 5)
    blocks = items.reshape(5, 4).mean(1)
    assert value == pytest.approx(items.mean())
    assert variance == pytest.approx(blocks.var(ddof=1) / 5)


def test_one_item_has_no_jackknife():
    with pytest.raises(StatisticsError, match="at least 2"):
        jackknife_influence(1.0, np.array([1.0]))
