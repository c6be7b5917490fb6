"""The encoder of BERT: sums of embeddings, then post-norm layers of self-attention and an MLP.

    ids -- word + position + segment -- LayerNorm -- L times [ attention --(+)-- LayerNorm -- MLP --(+)-- LayerNorm ]

Attention is fused where only its result is wanted, and plain arithmetic where its maps are asked for or where
derivatives are taken forward (`plain=True`: fused kernels have no forward-mode derivative). There is no dropout.

Letters: B batch, S positions, D width, H heads, C = D / H channels of one head, V vocabulary.

Source: Devlin, Chang, Lee, Toutanova 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError


class BertError(TesseraError):
    """An encoder was configured or called in a way that has no meaning."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder.

    Attributes:
        vocabulary_size: V.
        width: D.
        layers: Number of layers.
        heads: H; divides the width.
        mlp: Hidden channels of the MLP.
        positions: Most tokens of a text.
        types: Rows of the table of segment types, of which single texts use the first.
        epsilon: Added to the variance in LayerNorm.
    """

    vocabulary_size: int
    width: int
    layers: int
    heads: int
    mlp: int
    positions: int = 512
    types: int = 2
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise BertError(f"width {self.width} is not a multiple of heads {self.heads}.")


class BertEmbeddings(nn.Module):
    """LayerNorm(word[id] + position[place] + segment[0]).

    Args:
        config: Sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary_size, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.segment = nn.Embedding(config.types, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings (B, S, D) of tokens (B, S).

        Raises:
            BertError: There are more positions than the table has.
        """
        length = ids.shape[1]
        if length > self.position.num_embeddings:
            raise BertError(f"{length} tokens a text; the encoder has {self.position.num_embeddings} positions.")
        return self.norm(self.word(ids) + (self.position.weight[:length] + self.segment.weight[0]))


class BertLayer(nn.Module):
    """One post-norm layer: h = LN(x + attention(x)), LN(h + MLP(h)), MLP with exact GELU.

    Args:
        config: Sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.attention_output = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.mlp_input = nn.Linear(config.width, config.mlp)
        self.mlp_output = nn.Linear(config.mlp, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, *, plain: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the layer makes of its input, and with `plain` the attention map.

        Args:
            hidden: Input (B, S, D).
            mask: True at tokens, False at padding, (B, S); None where nothing is padded.
            plain: Compute attention as softmax(q k^T / sqrt(C)) v, step by step.

        Returns:
            Output (B, S, D); attention (B, H, S, S) whose rows sum to 1, None without `plain`.
        """
        batch, length, width = hidden.shape
        heads = self.query_key_value(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = None if mask is None else mask[:, None, None, :]
        attention = None
        if plain:
            scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)
            if attended is not None:
                scores = scores.masked_fill(~attended, -torch.inf)
            attention = scores.softmax(-1)
            mixed = attention @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attended)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        hidden = self.attention_norm(hidden + self.attention_output(mixed))
        hidden = self.mlp_norm(hidden + self.mlp_output(F.gelu(self.mlp_input(hidden))))
        return hidden, attention
