"""Finite scalar quantization: every dimension is bounded and rounded to one of a few levels.

Letters: `...` any leading axes (batch, tokens), `D` dimensions, `L` levels of a dimension.

Source: Mentzer et al. 2023 (FSQ), section 3.1 and appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from components.quantizers.mixed_radix import MixedRadix
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule

# Lets the bound reach the outer levels for finite input.
_MARGIN = 1e-3
# Vectors that share one broadcast of the constants: a broadcast over a handful of dimensions is slow.
_TOGETHER = 16


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
        self.places = MixedRadix(levels)
        sizes = self.places.sizes
        half = (sizes.double() - 1) * (1 + _MARGIN) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0).double()
        constants = {
            "half_range": half,
            "offset": offset,
            "shift": torch.atanh(offset / half),
            "half_width": sizes // 2,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.float().repeat(_TOGETHER, 1), persistent=False)
        # Index of the code at zero, whose digits are floor(L / 2).
        self._middle = sum(size // 2 * math.prod(levels[:place]) for place, size in enumerate(levels))

    def bound(self, vectors: Tensor) -> Tensor:
        """Return f(z) of `vectors` (..., D), in float32."""
        return torch.tanh(vectors.float() + self.shift[0]) * self.half_range[0] - self.offset[0]

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        self.check_vectors(vectors)
        with without_autocast(vectors.device):
            together = _TOGETHER if math.prod(vectors.shape[:-1]) % _TOGETHER == 0 else 1
            constants = (self.shift, self.half_range, self.offset, self.half_width)
            values, rounded = _BoundAndRound.apply(
                vectors.float().reshape(-1, together, self.code_dim), *(constant[:together] for constant in constants)
            )
            indices = self.places.join(rounded).add_(self._middle)
        return Quantized(values.view(vectors.shape), indices.view(vectors.shape[:-1]), values.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return (self.digits(indices) - self.half_width[0]) / self.half_width[0]

    def digits(self, indices: Tensor) -> Tensor:
        """Return the level of every dimension, int64 (..., D), each in [0, L_i), for `indices` (...).

        The use of a large product of levels is told by these: few vectors cannot show more codes than they are.
        """
        return self.places.split(indices)


class _BoundAndRound(torch.autograd.Function):
    """round(f(z)) / floor(L / 2) and round(f(z)), with the gradient of f(z) / floor(L / 2).

    One function, because the time goes into passes over few numbers per vector: the fewer, the faster.
    """

    @staticmethod
    def forward(context, vectors, shift, half_range, offset, half_width):
        bounded = (vectors + shift).tanh_()
        # Adding zero turns a negative zero, which no decoded code has, into a positive one.
        rounded = torch.addcmul(-offset, bounded, half_range).round_().add_(0.0)
        context.save_for_backward(bounded, half_range / half_width)
        context.mark_non_differentiable(rounded)
        return rounded / half_width, rounded

    @staticmethod
    @once_differentiable
    def backward(context, gradient, _):
        bounded, scale = context.saved_tensors
        return torch.ops.aten.tanh_backward(gradient * scale, bounded), None, None, None, None


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = FiniteScalarQuantizer
