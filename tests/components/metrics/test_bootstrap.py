import numpy as np
import pytest

from components.metrics import bootstrap
from components.metrics.bootstrap import BootstrapError, mean_interval


def test_the_interval_is_the_normal_one_for_many_items():
    values = np.random.default_rng(0).normal(2.0, 3.0, 2_000)
    low, high = mean_interval(values, 2_000, seed=1)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        low, high = mean_interval(generator.exponential(1.0, 150), 300, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    values = np.arange(50.0)
    whole = mean_interval(values, 100, seed=3)
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    assert mean_interval(values, 100, seed=3) == whole


def test_equal_values_have_no_spread_and_one_item_no_interval():
    assert mean_interval(np.full(9, 4.0), 50, seed=0) == (4.0, 4.0)
    with pytest.raises(BootstrapError, match="over 1 items"):
        mean_interval(np.array([1.0]), 10, seed=0)
