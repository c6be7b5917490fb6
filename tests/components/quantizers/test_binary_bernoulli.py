"""Drawn bits: their frequencies, the sigmoid's gradient, and certain bits in evaluation."""

import pytest
import torch

from components.quantizers.binary_bernoulli import BernoulliQuantizer
from components.quantizers.quantized import QuantizerError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_bits_are_drawn_with_the_probability_of_the_sharpened_sigmoid():
    torch.manual_seed(0)
    quantizer = BernoulliQuantizer(5, temperature=0.5).train()
    vector = torch.tensor([-1.0, -0.2, 0.0, 0.3, 2.0])
    frequency = quantizer(vector.expand(40_000, 5)).values.mean(0)
    torch.testing.assert_close(frequency, torch.sigmoid(vector / 0.5), atol=0.012, rtol=0)


def test_evaluation_takes_the_likelier_bits_every_time():
    quantizer = BernoulliQuantizer(6).eval()
    vectors = draw(50, 6)
    one, other = quantizer(vectors), quantizer(vectors)
    assert torch.equal(one.values, (vectors > 0).float())
    assert torch.equal(one.indices, other.indices)


def test_the_gradient_is_that_of_the_sigmoid_without_temperature():
    torch.manual_seed(0)
    quantizer = BernoulliQuantizer(4, temperature=0.1).train()
    vectors, upstream = draw(30, 4).requires_grad_(), draw(30, 4, seed=1)
    (quantizer(vectors).values * upstream).sum().backward()
    smooth = torch.sigmoid(vectors.detach())
    torch.testing.assert_close(vectors.grad, upstream * smooth * (1 - smooth))


def test_all_codes_come_back_from_their_indices_bit_for_bit():
    quantizer = BernoulliQuantizer(8)
    codes = quantizer.decode(torch.arange(256))
    assert len(codes.unique(dim=0)) == 256
    assert torch.equal(quantizer.eval()(codes - 0.5).indices, torch.arange(256))
    torch.manual_seed(1)
    result = quantizer.train()(draw(100, 8))
    assert torch.equal(quantizer.decode(result.indices), result.values)
    assert torch.equal(quantizer.digits(result.indices).float(), result.values)
    assert quantizer.bits_per_vector == 8


def test_what_makes_no_quantizer_is_refused():
    with pytest.raises(QuantizerError, match="above 0"):
        BernoulliQuantizer(4, temperature=0.0)
    with pytest.raises(QuantizerError, match="1 to 62"):
        BernoulliQuantizer(63)
