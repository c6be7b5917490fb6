"""Precision and recall against a plain count over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics.generation import GenerationMetricError, precision, recall


def counted(points: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    radii = [np.sort(np.linalg.norm(others - one, axis=1))[neighbours] for one in others]
    inside = [any(np.linalg.norm(point - one) <= radius + 1e-9 for one, radius in zip(others, radii, strict=True))
              for point in points]  # fmt: skip
    return float(np.mean(inside))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), neighbours=st.integers(1, 4), shift=st.floats(0, 3))
def test_it_counts_points_inside_a_ball(seed, neighbours, shift):
    rng = np.random.default_rng(seed)
    generated, real = rng.standard_normal((25, 3)) + shift, rng.standard_normal((20, 3))
    assert precision(generated, real, neighbours) == pytest.approx(counted(generated, real, neighbours))
    assert recall(generated, real, neighbours) == pytest.approx(counted(real, generated, neighbours))


def test_a_generator_that_repeats_a_few_real_images_is_precise_and_recalls_little():
    real = np.random.default_rng(0).standard_normal((400, 4))
    few = real[:5].repeat(80, axis=0) + 1e-3 * np.random.default_rng(1).standard_normal((400, 4))
    assert precision(few, real) == 1.0
    assert recall(few, real) < 0.1


def test_a_generator_of_everything_recalls_all_and_is_not_precise():
    rng = np.random.default_rng(0)
    real, wide = 0.2 * rng.standard_normal((400, 2)), rng.uniform(-6, 6, (2000, 2))
    assert recall(wide, real) > 0.9
    assert precision(wide, real) < 0.2


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(GenerationMetricError, match="fewer"):
        precision(np.zeros((3, 2)), np.zeros((3, 2)), neighbours=3)
    with pytest.raises(GenerationMetricError, match="shapes"):
        recall(np.zeros((9, 2)), np.zeros((9, 3)))
