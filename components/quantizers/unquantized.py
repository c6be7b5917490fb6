"""No quantizer at all, behind the interface of one: the codec that discrete ones are measured against.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor, nn

from components.quantizers.quantized import Quantized, QuantizerError


class Unquantized(nn.Module):
    """values = z, no index, no loss.

    Args:
        code_dim: D.

    Attributes:
        codebook_sizes: Empty: nothing names a vector.
        bits_per_vector: Infinite: a real number has no finite code.
    """

    codebook_sizes: tuple[int, ...] = ()
    bits_per_vector = math.inf
    indices_have_an_axis = True

    def __init__(self, code_dim: int) -> None:
        super().__init__()
        self.code_dim = code_dim

    @property
    def codebook_size(self) -> NoReturn:
        """There are no codes."""
        raise QuantizerError("Unquantized has no codebook; take the latents and decode_values of the codec.")

    def forward(self, vectors: Tensor) -> Quantized:
        """Return `vectors` (..., D) as they are, with indices (..., 0)."""
        nothing = torch.empty(*vectors.shape[:-1], 0, dtype=torch.int64, device=vectors.device)
        return Quantized(vectors, nothing, vectors.new_zeros(()))

    def decode(self, indices: Tensor) -> NoReturn:
        """Refuse: nothing was named.

        Raises:
            QuantizerError: Always.
        """
        raise QuantizerError(
            "Unquantized cannot decode indices, it has none; take the latents and decode_values of the codec."
        )

    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Nothing is fitted."""

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing changes."""


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = Unquantized
