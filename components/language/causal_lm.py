"""A causal language model over tokens, whose texts begin at a start token.

Letters: B sequences, T tokens, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.rotary import rotary_angles
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig


class LanguageModelError(TesseraError):
    """A language model was configured in a way that has no meaning."""


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
        positions: Learned vectors added to the embeddings (GPT-2), or rotations of queries and keys (Su et al. 2021).
        mlp_ratio, norm, activation, bias: As in `TransformerConfig`; "rms", "swiglu" and no bias make a Llama.
    """

    vocabulary_size: int
    context: int
    width: int
    layers: int
    heads: int
    tied: bool = False
    positions: Literal["learned", "rotary"] = "learned"
    mlp_ratio: float = 4.0
    norm: Literal["layer", "rms"] = "layer"
    activation: Literal["gelu", "swiglu"] = "gelu"
    bias: bool = True

    def __post_init__(self) -> None:
        if self.positions not in ("learned", "rotary"):
            raise LanguageModelError(f"positions is {self.positions!r}; expected 'learned' or 'rotary'.")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise LanguageModelError(
                f"Rotary positions turn pairs of channels, but a head has {self.width} / {self.heads} of them; "
                "choose width and heads so that this is even."
            )


class CausalLM(nn.Module):
    """Decoder-only transformer: `P(t_1..t_T) = prod_i P(t_i | start, t_1..t_i-1)`.

        start t_1 .. t_T-1 -- embed + position -- transformer (causal) -- linear -- ln P(t_1) .. ln P(t_T)

    Positions are learned and added, or rotary and inside attention.

    The start token has id V; it is read and never predicted. There is no end token.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    def __init__(self, config: CausalLMConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = self.start_token = config.vocabulary_size
        self.embedding = nn.Embedding(config.vocabulary_size + 1, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.transformer = Transformer(
            TransformerConfig(
                config.width,
                config.layers,
                config.heads,
                config.mlp_ratio,
                causal=True,
                norm=config.norm,
                activation=config.activation,
                bias=config.bias,
            )
        )
        self.output = None if config.tied else nn.Linear(config.width, config.vocabulary_size, bias=False)
        for embedding in (self.embedding, self.positions):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=0.02)
        if self.positions is None:
            angles = rotary_angles(torch.arange(config.context), config.width // config.heads)
            self.register_buffer("angles", angles, persistent=False)  # [2, context, C / 2]
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.embedding.weight.device

    def forward(
        self,
        tokens: Tensor,
        cache: KeyValueCache | None = None,
        *,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of the token behind each given one.

        Args:
            tokens: Ids, (B, T), the first one being the start token where the cache is empty.
            cache: Keys and values of the tokens before; extended in place.
            places: Positions of the T tokens, (T,) int64, each below the context; by default those behind the cache.
                The tokens of a draft tree stand at their depths.
            mask: True where a token may attend, (T, S) boolean, S counting the cached tokens, too; the causal order
                applies as well.

        Returns:
            Logits, (B, T, V).

        Raises:
            ContextOverflow: There are more tokens than positions.
        """
        past = 0 if cache is None else cache.length
        end = past + tokens.shape[1]
        if places is None and end > self.config.context:
            raise ContextOverflow(
                f"{end} tokens with the start token, but the model has {self.config.context} positions; "
                "shorten the text or train with a longer context."
            )
        where = slice(past, end) if places is None else places
        hidden, angles = self.embedding(tokens), None
        if self.positions is None:
            angles = self.angles[:, where]
        else:
            hidden = hidden + self.positions.weight[where]
        hidden = self.transformer(hidden, mask=mask, angles=angles, cache=cache)
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
        logits = self(self.with_start(tokens.to(self.device)))
        return logits.double().log_softmax(-1)


def build(**settings: Any) -> CausalLM:
    """Build a model from the fields of CausalLMConfig."""
    return CausalLM(CausalLMConfig(**settings))
