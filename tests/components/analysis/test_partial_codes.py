"""The first indices of a code: residual sums, and products whose unknown parts are their mean."""

import pytest
import torch

from components.analysis.partial_codes import PartialCodeError, decode_first, has_partial_codes
from components.quantizers.additive import AdditiveQuantizer
from components.quantizers.channel_split import ChannelSplitQuantizer
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.pq import build as product
from components.quantizers.rvq import ResidualQuantizer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_residual_prefix_is_the_sum_of_its_codes_and_gets_nearer():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(16, 4, codebooks=3)
    vectors = draw(300, 4)
    quantizer.start_from(vectors, torch.Generator().manual_seed(0))
    indices = quantizer(vectors).indices
    errors = []
    for known in (1, 2, 3):
        expected = sum(quantizer.codebooks[place].weight[indices[:, place]] for place in range(known))
        found = decode_first(quantizer, indices, known, torch.zeros(4))
        torch.testing.assert_close(found, expected)
        errors.append(float((vectors - found).square().sum()))
    assert errors[0] > errors[1] > errors[2]


def test_unknown_parts_of_a_product_are_the_mean_and_nothing_constant_is_nearer():
    torch.manual_seed(0)
    quantizer = product(8, 6, codebooks=3)
    vectors = draw(500, 6) + 2
    quantizer.start_from(vectors, torch.Generator().manual_seed(0))
    result = quantizer(vectors)
    mean = result.values.mean(0)
    partial = decode_first(quantizer, result.indices, 1, mean)
    assert torch.equal(partial[:, :2], result.values[:, :2])
    assert torch.equal(partial[:, 2:], mean[2:].expand(500, 4))
    error = (result.values - partial).square().sum()
    for shift in (0.1, -0.1, 1.0):
        other = decode_first(quantizer, result.indices, 1, mean + shift)
        assert (result.values - other).square().sum() > error
    assert torch.equal(decode_first(quantizer, result.indices, 3, mean), result.values)


def test_only_residual_codes_and_products_of_single_indices_have_parts():
    assert has_partial_codes(product(4, 4, codebooks=2))
    assert not has_partial_codes(AdditiveQuantizer(4, 4, codebooks=2))
    assert not has_partial_codes(EuclideanQuantizer(4, 4))
    assert not has_partial_codes(ChannelSplitQuantizer(ResidualQuantizer(4, 2, codebooks=2), 2))
    with pytest.raises(PartialCodeError, match="AdditiveQuantizer"):
        decode_first(AdditiveQuantizer(4, 4, codebooks=2), torch.zeros(3, 2, dtype=torch.int64), 1, torch.zeros(4))
    with pytest.raises(PartialCodeError, match="3 of 2"):
        decode_first(product(4, 4, codebooks=2), torch.zeros(3, 2, dtype=torch.int64), 3, torch.zeros(4))
