"""The codec without a quantizer: nothing changes, nothing is named."""

import math

import pytest
import torch

from components.quantizers.quantized import QuantizerError
from components.quantizers.unquantized import Unquantized


def test_vectors_and_their_gradient_pass_as_they_are():
    vectors = torch.randn(3, 5, 4, requires_grad=True)
    result = Unquantized(4)(vectors)
    assert result.values is vectors
    assert result.indices.shape == (3, 5, 0)
    assert float(result.loss) == 0
    (result.values.square().sum() + result.loss).backward()
    torch.testing.assert_close(vectors.grad, 2 * vectors.detach())


def test_it_has_no_codes():
    unquantized = Unquantized(4)
    assert unquantized.codebook_sizes == ()
    assert unquantized.bits_per_vector == math.inf
    with pytest.raises(QuantizerError, match="no codebook"):
        _ = unquantized.codebook_size
    with pytest.raises(QuantizerError, match="decode_values"):
        unquantized.decode(torch.zeros(3, 0, dtype=torch.int64))
