"""Adaptive layer norm: a condition sets shift, scale and gate of every normalised branch.

    x' = x + gate(c) * f((1 + scale(c)) * norm(x) + shift(c))

with shift, scale and gate linear in silu(c) and zero at the start, so that a new block is the identity.

Letters: `B` rows of a batch, `T` tokens, `D` width, `E` width of the condition. A condition is (B, E), the same for all
tokens of a row, or (B, T, E), one for each token.

Sources: Perez et al. 2018 (FiLM); Peebles and Xie 2023 (DiT, section 3.2: adaLN-Zero).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from components.nn.rotary import rotate
from components.nn.transformer import MLP, Attention, KeyValueCache, TransformerConfig


class Modulation(nn.Module):
    """Shifts, scales and gates of a condition, all zero at the start.

    Args:
        condition_width: E.
        width: D.
        count: How many vectors of width D.
    """

    def __init__(self, condition_width: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(condition_width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return `count` vectors (..., D) of a condition (..., E)."""
        return self.linear(F.silu(condition)).chunk(self.count, dim=-1)


class AdaptiveNorm(nn.Module):
    """(1 + scale(c)) * norm(x) + shift(c): the last norm of a network of adaptive blocks.

    Args:
        width: D.
        condition_width: E.
    """

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(condition_width, width, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Normalise tokens (..., D) under a condition (..., E) that broadcasts against them."""
        shift, scale = self.modulation(condition)
        return modulate(self.norm(tokens), shift, scale)


class AdaptiveBlock(nn.Module):
    """A transformer block, attention then MLP, whose branches a condition shifts, scales and gates.

    Args:
        config: Sizes; `norm`, `dropout` and `context_width` have no meaning here.
        condition_width: E.
        layer: Number of this block, its place in a cache.
    """

    def __init__(self, config: TransformerConfig, condition_width: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.causal = config.causal
        self.modulation = Modulation(condition_width, config.width, 6)
        self.attention_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(config.width, config.heads, config.width, config.bias, 0.0)
        self.mlp_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.mlp = MLP(config.width, round(config.mlp_ratio * config.width), config.activation, config.bias)
        deviation = 1 / math.sqrt(3 * config.width)
        for part in (self.attention, self.mlp):
            for parameter in part.parameters():
                nn.init.normal_(parameter, std=deviation) if parameter.dim() == 2 else nn.init.zeros_(parameter)

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return shift, scale, gate of attention and of the MLP, each (B, 1 or T, D), of a condition."""
        return self.modulation(condition if condition.dim() == 3 else condition.unsqueeze(1))

    def forward(
        self,
        tokens: Tensor,
        modulations: tuple[Tensor, ...],
        *,
        mask: Tensor | None = None,
        angles: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Transform tokens (B, T, D).

        Args:
            tokens: (B, T, D); with a cache one token, the next one behind those it holds.
            modulations: What `modulations` returned for the condition.
            mask: (T, S) or broadcastable to (B, heads, T, S): True where a token may attend; instead of the causal
                order, not besides it.
            angles: Rotary table of the T positions.
            cache: Keys and values of the tokens before, extended in place; the caller moves its `length`.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulations
        normed = modulate(self.attention_norm(tokens), shift, scale)
        queries = self.attention.queries(normed)
        keys, values = self.attention.project(normed)
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        causal = self.causal and mask is None and tokens.shape[1] > 1
        tokens = tokens + gate * self.attention(queries, keys, values, mask, causal)
        return tokens + mlp_gate * self.mlp(modulate(self.mlp_norm(tokens), mlp_shift, mlp_scale))


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return (1 + scale) * tokens + shift."""
    return tokens * (1 + scale) + shift
