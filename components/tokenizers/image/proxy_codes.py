"""Proxy codes: predict the codes of a frozen grid tokenizer first, learn pixels through its decoder afterwards.

    stage 1:   features -- linear, tanh, linear -- logits over the grid's codebook,    cross entropy to grid codes
    stage 2:   softmax(logits) . grid codebook -- the grid's pixel decoder (now trained too) -- image

Letters: `B` images, `P` cells of the grid, `D` width, `K'` codebook size of the grid, `C'` width of its codes.

Source: Yu et al. 2024 (TiTok), section 3.3 (two-stage training with proxy codes); used unchanged by One-D-Piece.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GridTokenizer(Protocol):
    """A tokenizer with one code per cell of a square grid.

    Attributes:
        codebook_size: K'.
        cells: P.
        codebook: The codes (K', C').
    """

    codebook_size: int
    cells: int
    codebook: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """Return code indices (B, P) of images (B, 3, H, W), row by row."""
        ...

    def decode_values(self, values: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of code vectors (B, P, C'), mixtures of codes included."""
        ...


class ProxyCodeHead(nn.Module):
    """Patch features to distributions over the codes of a grid tokenizer, and through its decoder to images.

    Args:
        grid: The trained grid tokenizer; a part of this module from now on, frozen until `train_decoder`.
        width: D.
    """

    def __init__(self, grid: nn.Module, width: int) -> None:
        super().__init__()
        self.grid = grid.eval().requires_grad_(False)
        self.patches = grid.cells
        self.to_logits = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, grid.codebook_size))

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (B, P, K') of patch features (B, P, D)."""
        return self.to_logits(features)

    def forward(self, features: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of patch features (B, P, D), through the expected code of every cell."""
        expected = self.logits(features).softmax(-1) @ self.grid.codebook
        return self.grid.decode_values(expected)

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Return the stage 1 loss: mean cross entropy in nats between predicted and true grid codes of `images`."""
        with torch.no_grad():
            codes = self.grid.encode(images)
        return F.cross_entropy(self.logits(features).flatten(0, 1), codes.flatten())

    def train_decoder(self) -> None:
        """Begin stage 2: the grid's codebook and pixel decoder become trainable, its encoder stays frozen."""
        self.grid.requires_grad_(True)
        for parameter in self.grid.encoder.parameters():
            parameter.requires_grad_(False)


build = ProxyCodeHead
