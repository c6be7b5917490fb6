"""Finite scalar quantization: every dimension is bounded and rounded to one of a few levels.

Letters: `...` any leading axes (batch, tokens), `D` dimensions, `L` levels of a dimension.

Source: Mentzer et al. 2023 (FSQ), section 3.1 and appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from components.quantizers.mixed_radix import join_digits, place_values, split_digits
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule

# Lets the bound reach the outer levels for finite input.
_MARGIN = 1e-3


class FiniteScalarQuantizer(QuantizerModule):
    """L_i levels in dimension i, prod L_i codes, no codebook and no loss.

        h = (L - 1)(1 + 1e-3) / 2,   o = 1/2 for even L else 0,   f(z) = h tanh(z + atanh(o / h)) - o
        values = round(f(z)) / floor(L / 2), with the gradient of f(z) / floor(L / 2)

    f keeps 0 at 0 and its rounding takes exactly L values: -floor(L / 2), ..., ceil(L / 2) - 1. Index: digits
    round(f) + floor(L / 2), the first dimension varying fastest.

    Args:
        levels: L_1, ..., L_D, each at least 2.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        if any(count < 2 for count in levels):
            raise QuantizerError(
                f"FiniteScalarQuantizer(levels={list(levels)}): every dimension needs at least 2 levels."
            )
        super().__init__(len(levels), (math.prod(levels),))
        self.levels = tuple(levels)
        sizes = torch.tensor(levels)
        worth = place_values(levels)
        half = (sizes.double() - 1) * (1 + _MARGIN) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0).double()
        constants = {
            "half_range": half.float(),
            "offset": offset.float(),
            "shift": torch.atanh(offset / half).float(),
            "half_width": (sizes // 2).float(),
            "worth": worth,
            "sizes": sizes,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def bound(self, vectors: Tensor) -> Tensor:
        """Return f(z) of `vectors` (..., D), in float32."""
        with without_autocast(vectors.device):
            return torch.tanh(vectors.float() + self.shift) * self.half_range - self.offset

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        self.check_vectors(vectors)
        values, rounded = _Rounding.apply(self.bound(vectors), self.half_width)
        with torch.no_grad():
            indices = join_digits((rounded + self.half_width).long(), self.worth)
        return Quantized(values, indices, values.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return (self.digits(indices) - self.half_width) / self.half_width

    def digits(self, indices: Tensor) -> Tensor:
        """Return the level of every dimension, int64 (..., D), each in [0, L_i), for `indices` (...).

        The use of a large product of levels is told by these: few vectors cannot show more codes than they are.
        """
        return split_digits(indices, self.worth, self.sizes)


class _Rounding(torch.autograd.Function):
    """Round bounded vectors and scale them, with the gradient of the scaling alone."""

    @staticmethod
    def forward(context, bounded: Tensor, half_width: Tensor) -> tuple[Tensor, Tensor]:
        # Adding zero turns a negative zero, which no decoded code has, into a positive one.
        rounded = bounded.round().add_(0.0)
        context.mark_non_differentiable(rounded)
        context.save_for_backward(half_width)
        return rounded / half_width, rounded

    @staticmethod
    def backward(context, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        return gradient / context.saved_tensors[0], None


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = FiniteScalarQuantizer
