"""A causal language model over tokens, whose texts begin at a start token.

Letters: B sequences, T tokens, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig


class ContextOverflow(TesseraError):
    """More tokens were given to a model than it has positions for."""


@dataclass(frozen=True)
class CausalLMConfig:
    """Sizes of a causal language model.

    Attributes:
        vocabulary_size: V, without the start token.
        context: Most tokens that are predicted, the first from the start token alone.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
        tied: The output layer is the input embedding (GPT-2) instead of a matrix of its own.
    """

    vocabulary_size: int
    context: int
    width: int
    layers: int
    heads: int
    tied: bool = False


class CausalLM(nn.Module):
    """Decoder-only transformer with learned absolute positions: `P(t_1..t_T) = prod_i P(t_i | start, t_1..t_i-1)`.

        start t_1 .. t_T-1 -- embed + position -- transformer (causal) -- linear -- ln P(t_1) .. ln P(t_T)

    The start token has id V; it is read and never predicted. There is no end token.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    def __init__(self, config: CausalLMConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = self.start_token = config.vocabulary_size
        self.embedding = nn.Embedding(config.vocabulary_size + 1, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.transformer = Transformer(TransformerConfig(config.width, config.layers, config.heads, causal=True))
        self.output = None if config.tied else nn.Linear(config.width, config.vocabulary_size, bias=False)
        for embedding in (self.embedding, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=0.02)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Return the logits of the token behind each given one.

        Args:
            tokens: Ids, (B, T), the first one being the start token where the cache is empty.
            cache: Keys and values of the tokens before; extended in place.

        Returns:
            Logits, (B, T, V).

        Raises:
            ContextOverflow: There are more tokens than positions.
        """
        past = 0 if cache is None else cache.length
        end = past + tokens.shape[1]
        if end > self.config.context:
            raise ContextOverflow(
                f"{end} tokens with the start token, but the model has {self.config.context} positions; "
                "shorten the text or train with a longer context."
            )
        hidden = self.embedding(tokens) + self.positions.weight[past:end]
        hidden = self.transformer(hidden, cache=cache)
        matrix = self.embedding.weight[: self.vocabulary_size] if self.output is None else self.output.weight
        return F.linear(hidden, matrix)

    def with_start(self, tokens: Tensor) -> Tensor:
        """Put the start token in front of sequences, (B, T) to (B, T + 1)."""
        return F.pad(tokens, (1, 0), value=self.start_token)

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the mean of -ln P(t_i | t_1..t_i-1) over all tokens of whole sequences (B, T), in nats per token."""
        logits = self(self.with_start(tokens[:, :-1]))
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())

    @torch.no_grad()
    def along(self, tokens: Tensor) -> Tensor:
        """Return ln P(next token) after the first 0 .. T tokens of each sequence, (B, T) to (B, T + 1, V) float64.

        One forward pass; whatever stands behind a place does not change the row at it, so padding is harmless.
        """
        logits = self(self.with_start(tokens.to(self.positions.weight.device)))
        return logits.double().log_softmax(-1)
