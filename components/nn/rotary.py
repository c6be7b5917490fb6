"""Rotary position embedding: positions as rotations of queries and keys.

Shapes: B batch, H heads, T tokens, C channels of one head.

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, head_width: int, base: float = 10_000.0) -> Tensor:
    """Return cosine and sine of every rotation: angle(t, i) = position(t) / base^(2i / C).

    Args:
        positions: Positions [T], or [B, 1, T] where rows differ; any integers or floats.
        head_width: C, even.
        base: Ratio between the slowest and the fastest rotation, about.

    Returns:
        Table [2, ..., T, C / 2]: cosines, sines.
    """
    exponents = torch.arange(0, head_width, 2, dtype=torch.float64, device=positions.device) / head_width
    angles = positions[..., None].double() * base**-exponents
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (2i, 2i + 1) by their angles.

    Scores of rotated queries and keys depend only on the distance of their positions.

    Args:
        heads: Queries or keys [B, H, T, C].
        angles: Table of `rotary_angles` for these T positions.

    Returns:
        Rotated tensor [B, H, T, C], of the same norm.
    """
    cosine, sine = angles.to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)
