"""The two scales of pixels: bytes from 0 to 255, and floats from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """Return images, uint8 in [0, 255] or float in [0, 1], as float32 in [0, 1]."""
    return images.float().div(255) if images.dtype == torch.uint8 else images.float()


def to_bytes(images: Tensor) -> Tensor:
    """Return images (float, any range) clipped to [0, 1] and rounded to 8 bits, as an image file would store them."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
