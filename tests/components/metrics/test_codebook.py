"""Use of a codebook in cases that can be counted by hand."""

import pytest
import torch

from components.metrics.codebook import (
    code_shares,
    entropy_bits,
    entropy_bits_per_index,
    joint_entropy_bits,
    perplexity,
    usage,
    usage_per_index,
)


def test_equal_use_of_m_codes_has_perplexity_m():
    indices = torch.tensor([[3, 5], [3, 5], [9, 1], [9, 1]])
    assert usage(indices, 16) == 4 / 16
    assert perplexity(indices, 16) == pytest.approx(4.0)


def test_one_code_alone_has_perplexity_one():
    indices = torch.zeros(7, dtype=torch.long)
    assert perplexity(indices, 8) == 1.0
    assert code_shares(indices, 8).tolist() == [1.0] + [0.0] * 7


def test_unequal_use_is_the_exponential_of_the_entropy():
    indices = torch.tensor([0] * 3 + [1])
    assert perplexity(indices, 2) == pytest.approx((0.75**-0.75) * (0.25**-0.25))


def test_entropy_of_a_uniform_stream_reaches_the_nominal_bits_and_of_a_constant_one_is_zero():
    assert entropy_bits(torch.arange(256).repeat(3)) == pytest.approx(8.0)
    assert entropy_bits(torch.full((10,), 5)) == 0.0


def test_entropy_needs_no_table_of_all_codes():
    indices = torch.tensor([1 << 60, 3, 1 << 60, 3])
    assert entropy_bits(indices) == pytest.approx(1.0)


def test_entropy_in_bits_is_that_of_the_perplexity():
    indices = torch.tensor([0, 0, 1, 2, 2, 2])
    assert 2 ** entropy_bits(indices) == pytest.approx(perplexity(indices, 3))


def test_joint_entropy_counts_combinations_and_is_below_the_sum_where_indices_depend():
    first = torch.arange(4).repeat(4)
    independent = torch.stack([first, torch.arange(4).repeat_interleave(4)], 1)
    dependent = torch.stack([first, first], 1).view(2, 8, 2)
    assert joint_entropy_bits(independent) == pytest.approx(4.0)
    assert joint_entropy_bits(dependent) == pytest.approx(2.0)
    for indices in (independent, dependent):
        assert entropy_bits_per_index(indices).tolist() == pytest.approx([2.0, 2.0])


def test_usage_per_index_is_that_of_each_codebook():
    indices = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 1]])
    assert usage_per_index(indices, [4, 6]).tolist() == [2 / 4, 3 / 6]
