"""ConvNeXt blocks over time, and the receptive field that a stream of them needs.

    x + gamma * pointwise(gelu(pointwise(norm(depthwise x))))

Letters: `B` batch, `T` frames, `D` width.

Sources: Liu et al. 2022 (ConvNeXt); Siuzdak 2023 (Vocos: the block in one dimension).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL = 7
"""Frames that a block's depthwise convolution covers."""


class ConvNextBlock(nn.Module):
    """One block.

    Args:
        width: D.
        expansion: Hidden channels over D.
        scale: Start of gamma, the learned scale of every channel of the branch.
    """

    def __init__(self, width: int, expansion: int = 3, scale: float = 0.25) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) of `x` (B, T, D)."""
        hidden = self.norm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return x + self.gamma * self.narrow(nn.functional.gelu(self.widen(hidden)))


class ConvNextStack(nn.Module):
    """A convolution to the width, blocks, and a norm.

    Args:
        inputs: Channels of the input.
        width: D.
        blocks: Number of blocks.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, width, KERNEL, padding=KERNEL // 2)
        self.enter_norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(ConvNextBlock(width, scale=1 / blocks) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.reach = (blocks + 1) * (KERNEL // 2)
        """Frames on either side that an output frame depends on."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) of `x` (B, T, inputs)."""
        hidden = self.enter(x.transpose(1, 2)).transpose(1, 2)
        return self.norm(self.blocks(self.enter_norm(hidden)))


class Halve(nn.Module):
    """Half as many frames: a convolution of stride 2 and width 4, so that frame t covers frames 2t - 1 to 2t + 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T / 2, outputs) of `x` (B, T, inputs), T even."""
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


class Double(nn.Module):
    """Twice as many frames: every frame becomes two by a linear map of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2 T, outputs) of `x` (B, T, inputs)."""
        both = self.linear(x)
        return both.unflatten(-1, (2, -1)).flatten(1, 2)
