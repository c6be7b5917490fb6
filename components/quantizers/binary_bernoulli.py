"""Bernoulli quantization: every dimension of a vector is a bit, drawn while a codec trains.

Letters: `...` any leading axes (batch, tokens), `D` bits.

Source: Wang et al. 2025 (Instella-T2I, section on the binary tokenizer); Bengio, Leonard, Courville 2013 (stochastic
binary units with a straight-through gradient).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.quantizers.lfq import sign_places
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule, straight_through


class BernoulliQuantizer(QuantizerModule):
    """Codes {0, 1}^D without codebook and loss.

        training:     b_i ~ Bernoulli(sigma(z_i / temperature))          evaluation:     b_i = 1 where z_i > 0, else 0
        values = b, with the gradient of sigma(z)

    A low temperature draws nearly certain bits and still tries the other one near 0. The draws come from torch's global
    generator. Index: bit i is worth 2^i.

    Args:
        code_dim: D, at most 62.
        temperature: Temperature of the draws.
    """

    def __init__(self, code_dim: int, *, temperature: float = 0.1) -> None:
        places = sign_places(code_dim)
        super().__init__(code_dim, (1 << code_dim,))
        if temperature <= 0:
            raise QuantizerError(f"BernoulliQuantizer(temperature={temperature}): expected above 0.")
        self.temperature = temperature
        self.places = places

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D): drawn bits in training, the likelier ones in evaluation."""
        self.check_vectors(vectors)
        vectors = vectors.float()
        with without_autocast(vectors.device):
            if self.training:
                bits = torch.rand_like(vectors) < torch.sigmoid(vectors.detach() / self.temperature)
            else:
                bits = vectors.detach() > 0
            values = straight_through(bits.float(), torch.sigmoid(vectors))
        return Quantized(values, self.places.join(bits), vectors.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return self.digits(indices).float()

    def digits(self, indices: Tensor) -> Tensor:
        """Return the bits, int64 (..., D), of `indices` (...)."""
        return self.places.split(indices)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = BernoulliQuantizer
