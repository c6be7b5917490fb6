"""Attention weights of one transformer block: what the fused kernel does not hand out.

Letters: `B` sequences, `H` heads, `T` queries, `S` keys, `C` channels of one head, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from components.nn.rotary import rotate
from components.nn.transformer import Block


def attention_map(
    block: Block,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    angles: Tensor | None = None,
    queries: Tensor | None = None,
) -> Tensor:
    """Return softmax(q k^T / sqrt(C) + mask) of a block's self-attention.

    Args:
        block: A block; its own norm comes before its attention.
        tokens: What the block reads, (B, T, D).
        mask: Boolean and broadcastable to (B, H, T, S), True where a query may attend; floats are added to the
            scores. The causal order of a causal model is part of what must be given here.
        angles: Rotary table of the T positions.
        queries: Places of the queries whose rows are wanted, int64; all T where None. Asking for few costs little.

    Returns:
        Weights (B, H, number of queries, T), rows of which sum to one.
    """
    normed = block.attention_norm(tokens)
    asked = normed if queries is None else normed[:, queries]
    query, key = block.attention.queries(asked), block.attention.project(normed)[0]
    if angles is not None:
        query = rotate(query, angles if queries is None else angles[..., queries, :])
        key = rotate(key, angles)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        mask = mask if queries is None else mask[..., queries, :]
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)
