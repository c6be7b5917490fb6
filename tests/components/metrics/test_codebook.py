"""Use of a codebook in cases that can be counted by hand."""

import pytest
import torch

from components.metrics.codebook import code_shares, perplexity, usage


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
