"""A sequence encoder with one number as its output: what a dedicated regression model is.

Letters: B sequences, T tokens, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class RegressorConfig:
    """Sizes of a regressor.

    Attributes:
        vocabulary_size: V.
        context: Most tokens of a sequence.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
    """

    vocabulary_size: int
    context: int
    width: int
    layers: int
    heads: int


class MeanPooledRegressor(nn.Module):
    """Encoder, mean over its states, one linear unit; trained on squared error.

        tokens -- embed + position -- transformer (both directions) -- mean over tokens -- linear -- z
        y = mean + deviation z

    Mean and deviation are those of the training targets, so that the unit learns a standardised value.

    Source: Zausinger et al. 2025, "Regress, Don't Guess", section 4 (regression head).
    """

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.transformer = Transformer(TransformerConfig(config.width, config.layers, config.heads))
        self.head = nn.Linear(config.width, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        for embedding in (self.embedding, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def standardise(self, targets: Tensor) -> None:
        """Take mean and deviation from training targets, (N,)."""
        self.mean.copy_(targets.double().mean())
        self.deviation.copy_(targets.double().std().clamp(min=1e-6))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the predicted value of each sequence, (B, T) to (B,)."""
        states = self.transformer(self.embedding(tokens) + self.positions.weight[: tokens.shape[1]])
        # Half precision holds three digits: under autocast the head's output is scaled in the buffers' own.
        return self.mean + self.deviation * self.head(states.mean(1))[:, 0].to(self.mean.dtype)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error over the variance of the training targets: 1 for always their mean."""
        return ((self(tokens) - targets) / self.deviation).square().mean()


def build(tokenizer: Any, *, context: int, width: int, layers: int, heads: int) -> MeanPooledRegressor:
    """Build an untrained regressor for a tokenizer's vocabulary, on torch's default device."""
    return MeanPooledRegressor(RegressorConfig(len(tokenizer.vocabulary), context, width, layers, heads))
