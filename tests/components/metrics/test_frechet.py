"""The Frechet distance against closed forms and a matrix square root of another library."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from components.metrics.frechet import FrechetError, frechet_distance, leave_group_out


def with_moments(mean, covariance, count=400, seed=0) -> np.ndarray:
    """Return samples whose sample mean and covariance are exactly those given."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False)))
    return raw @ whiten.T @ np.linalg.cholesky(covariance).T + mean


def test_of_two_gaussians_with_aligned_axes_it_is_the_closed_form():
    first = with_moments(np.array([1.0, 0.0, 2.0]), np.diag([4.0, 1.0, 9.0]))
    second = with_moments(np.array([0.0, 0.0, 4.0]), np.diag([1.0, 1.0, 16.0]), seed=1)
    # ||mu||^2 + sum (s1 - s2)^2 = 1 + 4 + (2 - 1)^2 + 0 + (3 - 4)^2
    assert frechet_distance(first, second, ridge=0.0) == pytest.approx(7.0, abs=1e-9)


def test_it_agrees_with_scipys_matrix_square_root():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12)), generator.normal(size=(200, 12))
    one, other = np.cov(first, rowvar=False) + 1e-6 * np.eye(12), np.cov(second, rowvar=False) + 1e-6 * np.eye(12)
    peer = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert frechet_distance(first, second) == pytest.approx(peer, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(peer, rel=1e-8)


def test_of_a_set_and_itself_it_is_zero_even_with_fewer_items_than_features():
    features = np.random.default_rng(0).normal(size=(20, 64))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)


def test_it_does_not_change_under_a_common_rotation_and_shift():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(100, 5)), 2 * generator.normal(size=(80, 5)) + 1
    turn = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    assert frechet_distance(first @ turn + 3, second @ turn + 3) == pytest.approx(frechet_distance(first, second))


def test_small_samples_overstate_it():
    generator = np.random.default_rng(0)
    few = np.mean([frechet_distance(*generator.normal(size=(2, 50, 16))) for _ in range(20)])
    many = np.mean([frechet_distance(*generator.normal(size=(2, 500, 16))) for _ in range(20)])
    assert few > 5 * many


def test_leaving_a_group_out_leaves_it_out_of_both_sides():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(60, 4)), generator.normal(size=(60, 4)) + 0.5
    groups = np.arange(60) % 5
    value, without = leave_group_out(first, second, groups)
    assert value == frechet_distance(first, second)
    assert without.shape == (5,)
    assert without[3] == pytest.approx(frechet_distance(first[groups != 3], second[groups != 3]))


def test_sets_of_other_width_or_count_are_refused():
    with pytest.raises(FrechetError, match="one network"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(FrechetError, match="two items"):
        frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))
    with pytest.raises(FrechetError, match="row by row"):
        leave_group_out(np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3, dtype=int))
