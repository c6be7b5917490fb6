"""Random changes of training images that leave their class.

Letters: `B` images, `C` channels, `H W` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `padding` pixels along both axes: pad with zeros on all sides, cut the size back out.

    Args:
        images: (B, C, H, W), any type.
        padding: Pixels on each side.
        generator: Source of the shifts, on any device.

    Returns:
        (B, C, H, W).

    Source: He et al. 2016 (ResNet), section 4.2.
    """
    batch, channels, height, width = images.shape
    shifts = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator, device=generator.device)
    top, left = shifts.to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    first, channel = torch.arange(batch, device=images.device), torch.arange(channels, device=images.device)
    return padded[
        first[:, None, None, None], channel[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
