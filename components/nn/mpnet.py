"""The layer of MPNet: BERT's, with a bias for each head and distance between positions added to the scores.

    attention = softmax(q k^T / sqrt(C) + b[bucket(j - i)]) v

The published models share one table of biases among all layers. Here each layer has its own copy, so that layers can be
tuned apart from those below them.

Letters: B batch, S positions, D width, H heads, C = D / H channels of one head.

Source: Song, Tan, Qin, Lu, Liu 2020, "MPNet: Masked and Permuted Pre-training for Language Understanding"; buckets:
Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.language.t5 import distance_buckets
from components.nn.bert import BertConfig, BertLayer

BUCKETS, FURTHEST = 32, 128


class MPNetLayer(BertLayer):
    """One layer; its attention is always plain arithmetic, which has forward-mode derivatives.

    Args:
        config: Sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.relative = nn.Embedding(BUCKETS, config.heads)

    def bias(self, length: int) -> Tensor:
        """Return what is added to the scores, (H, S, S)."""
        places = torch.arange(length, device=self.relative.weight.device)
        buckets = distance_buckets(places - places[:, None], BUCKETS, FURTHEST, True)
        return self.relative(buckets).permute(2, 0, 1)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, *, plain: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the layer makes of its input, and with `plain` the attention map; see `BertLayer.forward`."""
        batch, length, width = hidden.shape
        heads = self.query_key_value(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads) + self.bias(length)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
        attention = scores.softmax(-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, length, width)
        hidden = self.attention_norm(hidden + self.attention_output(mixed))
        hidden = self.mlp_norm(hidden + self.mlp_output(F.gelu(self.mlp_input(hidden))))
        return hidden, attention if plain else None
