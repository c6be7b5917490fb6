"""Post-training quantization of each dimension with the same fixed levels, which fit a Gaussian.

The autoencoder is trained with continuous latents and stays as it is; nothing here is learnt. Every dimension gets its
own index, so B^D codes need B stored numbers.

Letters: `...` any leading axes (batch, tokens), `D` dimensions, `B` levels of a dimension.

Source: Wang et al. 2025 (TokenBridge), section 3.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule, straight_through

Spacing = Literal["gaussian", "uniform"]

# Latents are mapped so that [-range, range] becomes this many standard deviations to each side.
_SIDE = 3.0


class DimensionWiseQuantizer(QuantizerModule):
    """The nearest of B levels in every dimension.

    "gaussian" levels: u = 3 z / r, clamped to [-3, 3]; boundaries beta_i = Phi^-1(i / B), clamped alike, cut a standard
    normal into bins of equal probability, and a level is the mean of its bin,

        v_i = (phi(beta_i) - phi(beta_{i+1})) / (Phi(beta_{i+1}) - Phi(beta_i)),       values = v_k r / 3

    with k the level nearest to u (decisions fall between levels, not at beta). "uniform" levels are the middles of B
    equal parts of [-r, r]. Latents should have standard deviation 1: the mapped one is then 3 / r, which is what the
    levels are best for at r = 5. The gradient passes straight through; there is no loss.

    Args:
        code_dim: D.
        levels_per_dimension: B.
        value_range: r; values beyond it fall on the outermost level (see `clipped_share`).
        spacing: Where the levels lie.
    """

    indices_have_an_axis = True

    def __init__(
        self,
        code_dim: int,
        *,
        levels_per_dimension: int = 64,
        value_range: float = 5.0,
        spacing: Spacing = "gaussian",
    ) -> None:
        super().__init__(code_dim, (levels_per_dimension,) * code_dim)
        if value_range <= 0 or spacing not in get_args(Spacing):
            raise QuantizerError(
                f"DimensionWiseQuantizer(value_range={value_range}, spacing={spacing!r}): expected a range above 0 and "
                f"one of {', '.join(get_args(Spacing))}."
            )
        self.value_range = value_range
        mapped = gaussian_levels(levels_per_dimension) if spacing == "gaussian" else _uniform(levels_per_dimension)
        levels = mapped * (value_range / _SIDE)
        self.register_buffer("levels", levels.float(), persistent=False)
        self.register_buffer("borders", ((levels[1:] + levels[:-1]) / 2).float(), persistent=False)

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D): indices (..., D)."""
        self.check_vectors(vectors)
        vectors = vectors.float()
        with without_autocast(vectors.device):
            indices = torch.bucketize(vectors.detach().contiguous(), self.borders)
            return Quantized(straight_through(self.levels[indices], vectors), indices, vectors.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (..., D)."""
        self.check_indices(indices)
        return self.levels[indices]

    def clipped_share(self, vectors: Tensor) -> Tensor:
        """Return the share of the numbers in `vectors` (any shape) that lie beyond the range, a scalar."""
        return (vectors.abs() > self.value_range).float().mean()


def gaussian_levels(count: int) -> Tensor:
    """Return v_0 < ... < v_{B-1}, float64 (B,): means of B bins of a standard normal of equal probability.

    The outermost boundaries are at -3 and 3, so the outer bins are a little narrower than the others are probable.
    """
    edges = torch.special.ndtri(torch.linspace(0, 1, count + 1, dtype=torch.float64)).clamp(-_SIDE, _SIDE)
    density = torch.exp(-edges.square() / 2) / (2 * torch.pi) ** 0.5
    levels = -density.diff() / torch.special.ndtr(edges).diff()
    # Rounding leaves the two halves a last digit apart; they mirror each other.
    return (levels - levels.flip(0)) / 2


def _uniform(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) * 2 + 1 - count) * (_SIDE / count)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = DimensionWiseQuantizer
