"""Controls for generators of image tokens: what can be known about a token without looking at class or neighbours.

`ContextFreeTokens` gives a head one constant condition, so that it learns the joint distribution of the numbers of a
single token. `PositionHistograms` counts, without any network: every number by itself, at every position.

Both have the verbs of components.language.class_conditional.

Letters: `B` images, `P` positions, `C` numbers of a token, `L` levels of a number, `D` width of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContextFreeTokens(nn.Module):
    """A head on a learned constant condition: every token of every image is drawn from one distribution.

    Args:
        head: Predicts one token from its condition.
        positions: P.
        width: D.
    """

    def __init__(self, *, head: nn.Module, positions: int, width: int) -> None:
        super().__init__()
        self.positions = positions
        self.head = head
        self.condition = nn.Parameter(torch.randn(1, width))

    def loss(self, tokens: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the head's loss of tokens (B, P, C); the labels are not looked at."""
        flat = tokens.flatten(0, 1)
        return self.head.loss(flat, self.condition.expand(len(flat), -1), generator)

    @torch.no_grad()
    def nll(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return -ln p of every number of every token, nats (B, P, C)."""
        flat = tokens.flatten(0, 1)
        return self.head.nll(flat, self.condition.expand(len(flat), -1)).unflatten(0, tokens.shape[:2])

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator, *, temperature: float = 1.0, **_: object) -> Tensor:
        """Draw tokens (B, P, C), each by itself; there is no class that could guide."""
        condition = self.condition.expand(len(labels) * self.positions, -1)
        return self.head.sample(condition, generator, temperature=temperature).unflatten(0, (-1, self.positions))


class PositionHistograms:
    """Frequencies of each number's levels at each position, one added to every count.

        p(x) = prod_p prod_d (n_{p,d}(x_p^d) + 1) / (images + L)

    Args:
        tokens: Levels of training images, int64 (B, P, C).
        levels: L.
    """

    def __init__(self, tokens: Tensor, levels: int) -> None:
        _, self.positions, self.dimensions = tokens.shape
        self.levels = levels
        cells = torch.arange(self.positions * self.dimensions, device=tokens.device) * levels
        flat = (tokens.flatten(1) + cells).flatten()
        counts = torch.bincount(flat, minlength=len(cells) * levels)
        self.counts = counts.view(self.positions, self.dimensions, levels).double() + 1

    def pooled(self) -> PositionHistograms:
        """Return the histograms of the same images with all positions counted together."""
        one = object.__new__(PositionHistograms)
        one.positions, one.dimensions, one.levels = self.positions, self.dimensions, self.levels
        one.counts = ((self.counts - 1).sum(0, keepdim=True) + 1).expand_as(self.counts)
        return one

    def nll(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return -ln p of every number, nats (B, P, C) float64, of levels int64 (B, P, C)."""
        logarithms = -(self.counts / self.counts.sum(-1, keepdim=True)).log()
        return logarithms.expand(len(tokens), -1, -1, -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def sample(self, labels: Tensor, generator: torch.Generator, **_: object) -> Tensor:
        """Draw levels, int64 (B, P, C), every number by itself."""
        drawn = torch.multinomial(self.counts.flatten(0, 1), len(labels), replacement=True, generator=generator)
        return drawn.T.unflatten(1, (self.positions, self.dimensions))


# A description (components.bases) names this module and gives the arguments of its `build`.
build = ContextFreeTokens
