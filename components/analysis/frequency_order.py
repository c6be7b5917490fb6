"""Which channels of latent maps carry the coarse structure of images.

For every channel, the share of its energy at low spatial frequencies:

    share_c = sum over images and |f| <= r of |F_c(f)|^2  /  sum over images and all f of |F_c(f)|^2

with F_c the two-dimensional Fourier transform of the channel's map and |f| the distance from frequency zero.

Letters: `B` images, `C` channels, `h w` rows and columns of a latent map.

Source: Wang et al. 2025 (TokenBridge), section 3.3: channels are predicted in falling order of this share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


class FrequencyOrderError(TesseraError):
    """Latent maps have no low frequencies to speak of, or the disc has no size."""


def low_frequency_shares(maps: Tensor, radius: float = 0.5) -> Tensor:
    """Return the share of each channel's energy inside the low-frequency disc, float64 (C,).

    Args:
        maps: Latent maps (B, C, h, w), each channel centred on zero over the data set.
        radius: Radius r of the disc as a share of the highest frequency (0.5 cycles per cell).

    Raises:
        FrequencyOrderError: The maps are no maps, or the radius is not above 0.
    """
    if maps.dim() != 4 or min(maps.shape[2:]) < 2 or radius <= 0:
        raise FrequencyOrderError(
            f"maps of shape {list(maps.shape)} and radius {radius}; expected (B, C, h, w) with at least 2 rows and "
            "columns, and a radius above 0."
        )
    energy = torch.fft.fft2(maps.double()).abs().square().sum(0)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64, device=maps.device) for size in maps.shape[2:])
    distance = (rows.unsqueeze(1).square() + columns.square()).sqrt()
    inside = distance <= radius / 2 + 1e-9  # 0.5 cycles per cell is the highest frequency
    return (energy * inside).sum((1, 2)) / energy.sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)


def low_frequency_order(maps: Tensor, radius: float = 0.5) -> list[int]:
    """Return the channels in falling order of their low-frequency share; arguments as `low_frequency_shares`."""
    return low_frequency_shares(maps, radius).argsort(descending=True, stable=True).tolist()
