"""A head that spells out the dimensions of one token, one after another.

    p(q | c) = prod_j p(q^{o_j} | q^{o_1}, ..., q^{o_{j-1}}, c)

with q the levels of the token's dimensions, c the condition that a backbone computed for the token's position, and o
an order of the dimensions. A small causal transformer runs over the dimensions of each token by itself:

    project(c), e_{o_1}(q^{o_1}), ..., e_{o_{C-1}}(q^{o_{C-1}})     plus an embedding of the dimension to be predicted
        -- causal blocks with adaptive norm on project(c) -- norm -- one linear layer per dimension -- logits

Letters: `N` tokens (positions of several images), `C` dimensions of a token, `L` levels of a dimension, `E` width of
the condition, `W` width of the head.

Source: Wang et al. 2025 (TokenBridge), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.adaptive_norm import AdaptiveBlock, AdaptiveNorm
from components.nn.guidance import guided, paired
from components.nn.transformer import KeyValueCache, TransformerConfig


class DimensionHeadError(TesseraError):
    """A head over dimensions was given an order or levels that do not fit."""


class DimensionARHead(nn.Module):
    """Autoregressive over the dimensions of a token; see the module.

    Args:
        condition_width: E.
        dimensions: C.
        levels: L, the same for every dimension.
        width: W.
        layers: Blocks.
        heads: Attention heads.
        order: The dimensions in the order in which they are predicted; ascending where None.
    """

    def __init__(
        self,
        condition_width: int,
        dimensions: int,
        levels: int,
        *,
        width: int,
        layers: int,
        heads: int,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        order = list(range(dimensions)) if order is None else list(order)
        if sorted(order) != list(range(dimensions)):
            raise DimensionHeadError(
                f"order is {order}; expected each of the dimensions 0 to {dimensions - 1} exactly once."
            )
        self.dimensions, self.levels, self.order = dimensions, levels, order
        self.project = nn.Linear(condition_width, width)
        # One table for every dimension, kept as one: row c L + level.
        self.level_embedding = nn.Embedding(dimensions * levels, width)
        self.dimension_embedding = nn.Embedding(dimensions, width)
        config = TransformerConfig(width, layers, heads, causal=True)
        self.blocks = nn.ModuleList(AdaptiveBlock(config, width, layer) for layer in range(layers))
        self.norm = AdaptiveNorm(width, width)
        self.output = nn.Parameter(torch.randn(dimensions, width, levels) * 0.02)
        self.output_bias = nn.Parameter(torch.zeros(dimensions, 1, levels))
        self.register_buffer("places", torch.tensor(order), persistent=False)
        for table in (self.level_embedding, self.dimension_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, indices: Tensor, condition: Tensor) -> Tensor:
        """Return logits of all dimensions, each given the true levels of those before it in the order.

        Args:
            indices: Levels, int64 (N, C), in the dimensions' own order.
            condition: (N, E).

        Returns:
            Logits (C, N, L); entry [j] belongs to dimension `order[j]`.
        """
        self._check(indices)
        condition = self.project(condition)
        known = indices[:, self.places[:-1]] + self.places[:-1] * self.levels
        hidden = torch.cat([condition.unsqueeze(1), self.level_embedding(known)], dim=1)
        hidden = hidden + self.dimension_embedding.weight[self.places]
        for block in self.blocks:
            hidden = block(hidden, block.modulations(condition))
        hidden = self.norm(hidden, condition.unsqueeze(1)).transpose(0, 1)  # (C, N, W)
        return torch.baddbmm(self.output_bias[self.places], hidden, self.output[self.places])

    def nll(self, indices: Tensor, condition: Tensor) -> Tensor:
        """Return -ln p of each dimension's level given those before it, nats (N, C), in the dimensions' own order."""
        logits = self(indices, condition).float()
        targets = indices[:, self.places].T
        ordered = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        return ordered.T[:, self.places.argsort()]

    def loss(self, indices: Tensor, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of -ln p over tokens and dimensions, nats; nothing here is drawn."""
        logits = self(indices, condition).float()
        return F.cross_entropy(logits.flatten(0, 1), indices[:, self.places].T.flatten())

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
        """Draw tokens, one dimension after another, with the keys and values of earlier dimensions kept.

        Args:
            condition: (N, E).
            generator: Source of randomness, on the condition's device.
            unguided: Conditions (N, E) of the same tokens without the class, for guidance of the logits.
            guidance: Scale s of components.nn.guidance.
            temperature: Logits are divided by it.

        Returns:
            Levels, int64 (N, C), in the dimensions' own order.
        """
        rows, pairs = len(condition), unguided is not None
        condition = self.project(paired(condition, unguided))
        modulations = [block.modulations(condition) for block in self.blocks]
        cache = KeyValueCache(self.dimensions)
        drawn = torch.empty((rows, self.dimensions), dtype=torch.long, device=condition.device)
        given = condition
        for dimension in self.order:
            hidden = (given + self.dimension_embedding.weight[dimension]).unsqueeze(1)
            for block, modulation in zip(self.blocks, modulations, strict=True):
                hidden = block(hidden, modulation, cache=cache)
            cache.length += 1
            hidden = self.norm(hidden.squeeze(1), condition)
            logits = guided(hidden @ self.output[dimension] + self.output_bias[dimension], guidance, pairs=pairs)
            level = draw(logits, temperature, generator)
            drawn[:, dimension] = level
            given = self.level_embedding(level + dimension * self.levels)
            given = torch.cat([given, given]) if pairs else given
        return drawn

    def _check(self, indices: Tensor) -> None:
        if indices.dim() != 2 or indices.shape[1] != self.dimensions:
            raise DimensionHeadError(
                f"levels have shape {list(indices.shape)}; expected (N, {self.dimensions}), one level per dimension."
            )


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw one class per row of logits (N, L), divided by the temperature: int64 (N,)."""
    return torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator).squeeze(1)


# A study names this module in its parameters and calls `build`.
build = DimensionARHead
