"""Output layers that predict all dimensions of a token at once, as if they were independent.

    p(q | c) = prod_d p(q^d | c)

With one dimension this is the plain softmax over a codebook.

Letters: `N` tokens, `C` dimensions of a token, `L` levels of a dimension, `E` width of the condition.

Source: the parallel baseline of Wang et al. 2025 (TokenBridge), section 4.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.nn.dimension_ar_head import DimensionHeadError, draw
from components.nn.guidance import guided, paired


class IndependentHeads(nn.Module):
    """One linear layer per dimension on the condition.

    Args:
        condition_width: E.
        dimensions: C.
        levels: L, the same for every dimension.
    """

    def __init__(self, condition_width: int, dimensions: int, levels: int) -> None:
        super().__init__()
        self.dimensions, self.levels = dimensions, levels
        self.output = nn.Linear(condition_width, dimensions * levels)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, condition: Tensor) -> Tensor:
        """Return logits (N, C, L) of conditions (N, E)."""
        return self.output(condition).unflatten(-1, (self.dimensions, self.levels))

    def nll(self, indices: Tensor, condition: Tensor) -> Tensor:
        """Return -ln p of each dimension's level, nats (N, C), of levels int64 (N, C) and conditions (N, E)."""
        if indices.dim() != 2 or indices.shape[1] != self.dimensions:
            raise DimensionHeadError(
                f"levels have shape {list(indices.shape)}; expected (N, {self.dimensions}), one level per dimension."
            )
        logits = self(condition).float().flatten(0, 1)
        return F.cross_entropy(logits, indices.flatten(), reduction="none").view(indices.shape)

    def loss(self, indices: Tensor, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of -ln p over tokens and dimensions, nats; nothing here is drawn."""
        return self.nll(indices, condition).mean()

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        generator: torch.Generator,
        *,
        unguided: Tensor | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw levels, int64 (N, C); arguments as in `DimensionARHead.sample`."""
        logits = guided(self(paired(condition, unguided)), guidance, pairs=unguided is not None)
        return draw(logits.flatten(0, 1), temperature, generator).view(logits.shape[:2])


# A study names this module in its parameters and calls `build`.
build = IndependentHeads
