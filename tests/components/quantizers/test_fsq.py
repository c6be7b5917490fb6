"""Finite scalar quantization by enumeration of its levels."""

import math

import pytest
import torch

from components.quantizers.fsq import FiniteScalarQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("levels", range(2, 10))
def test_a_dimension_takes_exactly_its_levels_evenly_spaced_and_every_one_can_be_reached(levels):
    fsq = FiniteScalarQuantizer([levels])
    values = fsq(torch.linspace(-20, 20, 4001).unsqueeze(1)).values.unique()
    half = levels // 2
    assert values.tolist() == pytest.approx([(place - half) / half for place in range(levels)])
    assert torch.equal(fsq(torch.tensor([[-1e9], [1e9]])).indices, torch.tensor([0, levels - 1]))


@pytest.mark.parametrize("levels", [[5], [3, 4], [8, 5, 5, 5], [2, 9, 4]])
def test_indices_and_codes_are_inverse_over_all_entries(levels):
    fsq = FiniteScalarQuantizer(levels)
    count = math.prod(levels)
    assert fsq.codebook_size == count
    codes = fsq.decode(torch.arange(count))
    assert len(codes.unique(dim=0)) == count
    # A vector that the bound maps onto a code: f(z) = c floor(L / 2), solved for z.
    half = (torch.tensor(levels) - 1) * 1.001 / 2
    offset = torch.where(torch.tensor(levels) % 2 == 0, 0.5, 0.0)
    bounded = codes * (torch.tensor(levels) // 2)
    vectors = torch.atanh((bounded + offset) / half) - torch.atanh(offset / half)
    result = fsq(vectors)
    assert torch.equal(result.indices, torch.arange(count))
    assert torch.equal(result.values, codes)


def test_zero_is_a_code_and_the_bound_keeps_it_at_zero():
    fsq = FiniteScalarQuantizer([2, 3, 4, 5, 6, 7, 8, 9])
    assert fsq.bound(torch.zeros(8)).abs().max() < 1e-6
    assert torch.equal(fsq(torch.zeros(8)).values, torch.zeros(8))


def test_values_never_fall_as_a_vector_rises_and_dimensions_do_not_mix():
    fsq = FiniteScalarQuantizer([6, 5])
    first = torch.linspace(-4, 4, 200)
    values = fsq(torch.stack([first, torch.full_like(first, 0.7)], 1)).values
    assert bool((values[:, 0].diff() >= 0).all())
    assert len(values[:, 1].unique()) == 1


def test_the_error_is_at_most_half_a_step_of_the_bounded_vector():
    fsq = FiniteScalarQuantizer([8, 5, 4])
    vectors = torch.randn(1000, 3, generator=generator()) * 3
    error = fsq(vectors).values * fsq.half_width[0] - fsq.bound(vectors)
    assert float(error.abs().max()) <= 0.5 + 1e-6


def test_digits_are_the_levels_of_each_dimension():
    fsq = FiniteScalarQuantizer([8] * 8)
    result = fsq(torch.randn(50, 8, generator=generator()))
    digits = fsq.digits(result.indices)
    assert torch.equal(digits, (result.values * 4 + 4).long())
    assert int(digits.min()) >= 0
    assert int(digits.max()) < 8


def test_there_is_no_loss_and_no_state():
    fsq = FiniteScalarQuantizer([8, 5])
    assert float(fsq(torch.randn(4, 2)).loss) == 0
    assert not fsq.state_dict()
