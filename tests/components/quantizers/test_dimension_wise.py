"""Fixed levels per dimension against the integrals and distortions that define them."""

import itertools

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, truncnorm

from components.quantizers.dimension_wise import DimensionWiseQuantizer, gaussian_levels


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


COUNTS = [2, 3, 8, 16, 64, 256]


def edges(count):
    return [min(3.0, max(-3.0, norm.ppf(place / count))) for place in range(count + 1)]


@pytest.mark.parametrize("count", COUNTS)
def test_levels_are_the_means_of_bins_of_equal_probability(count):
    borders = edges(count)
    expected = [truncnorm.mean(low, high) for low, high in itertools.pairwise(borders)]
    levels = gaussian_levels(count)
    assert levels.tolist() == pytest.approx(expected, abs=1e-6)
    assert all(low < level < high for low, level, high in zip(borders, levels.tolist(), borders[1:], strict=False))


@pytest.mark.parametrize("count", COUNTS)
def test_levels_are_symmetric_rising_and_balanced(count):
    levels, borders = gaussian_levels(count), edges(count)
    assert torch.equal(levels, -levels.flip(0))
    assert bool((levels.diff() > 0).all())
    weights = [norm.cdf(high) - norm.cdf(low) for low, high in itertools.pairwise(borders)]
    assert abs(sum(weight * level for weight, level in zip(weights, levels.tolist(), strict=True))) < 1e-6


def test_two_levels_are_the_mean_of_a_half_normal_cut_at_three():
    assert gaussian_levels(2).tolist() == pytest.approx([-0.791, 0.791], abs=1e-3)


@pytest.mark.parametrize("spacing", ["gaussian", "uniform"])
@pytest.mark.parametrize("count", [2, 16, 64])
def test_quantizing_a_level_gives_it_back_and_decoding_is_monotone(count, spacing):
    quantizer = DimensionWiseQuantizer(3, levels_per_dimension=count, spacing=spacing)
    indices = torch.arange(count).unsqueeze(1).expand(count, 3)
    codes = quantizer.decode(indices)
    assert torch.equal(quantizer(codes).indices, indices)
    assert bool((codes.diff(dim=0) > 0).all())
    assert float(codes.abs().max()) <= 5.0


@pytest.mark.parametrize("spacing", ["gaussian", "uniform"])
def test_every_number_gets_the_nearest_level(spacing):
    quantizer = DimensionWiseQuantizer(4, levels_per_dimension=16, spacing=spacing)
    vectors = torch.randn(200, 4, generator=generator()) * 3
    nearest = (vectors.unsqueeze(-1) - quantizer.levels).abs().argmin(-1)
    assert torch.equal(quantizer(vectors).indices, nearest)


def test_changing_one_dimension_changes_one_index():
    quantizer = DimensionWiseQuantizer(5)
    vectors = torch.randn(40, 5, generator=generator())
    changed = vectors.clone()
    changed[:, 2] += 2
    differs = quantizer(vectors).indices != quantizer(changed).indices
    assert differs.any(0).tolist() == [False, False, True, False, False]


def relative_distortion(quantizer: DimensionWiseQuantizer) -> float:
    """Return E(z - q)^2 / E z^2 of a standard normal z, integrated between decision borders."""
    levels = quantizer.levels.double().tolist()
    borders = [-12.0, *quantizer.borders.double().tolist(), 12.0]
    return sum(
        quad(lambda z, level=level: (z - level) ** 2 * norm.pdf(z), low, high)[0]
        for level, low, high in zip(levels, borders, borders[1:], strict=False)
    )


@pytest.mark.parametrize(
    ("spacing", "count", "expected"),
    [("gaussian", 16, 0.0103), ("gaussian", 64, 0.00065), ("uniform", 16, 0.0325), ("uniform", 64, 0.0020)],
)
def test_the_distortion_of_unit_gaussian_latents_is_the_published_third_of_uniform_levels(spacing, count, expected):
    # Mapped to [-3, 3] a unit Gaussian has standard deviation 0.6 at a range of 5.
    quantizer = DimensionWiseQuantizer(1, levels_per_dimension=count, spacing=spacing)
    assert relative_distortion(quantizer) == pytest.approx(expected, rel=0.03)


def test_the_share_beyond_the_range_is_counted_and_clipped_to_the_outer_level():
    quantizer = DimensionWiseQuantizer(2, levels_per_dimension=8)
    vectors = torch.tensor([[6.0, 0.0], [-100.0, 4.9]])
    assert float(quantizer.clipped_share(vectors)) == 0.5
    assert quantizer(vectors).indices[:, 0].tolist() == [7, 0]


def test_more_dimensions_than_an_integer_could_count_are_no_problem():
    quantizer = DimensionWiseQuantizer(16, levels_per_dimension=64)
    assert quantizer.bits_per_vector == 96
    assert not quantizer.state_dict()
