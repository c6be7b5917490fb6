"""A convolutional encoder and decoder of images: each level halves, or doubles, the resolution.

    encoder:   image -- (strided convolution, residual blocks) per level -- norm -- latent map
    decoder:   latent map -- convolution -- (residual blocks, sub-pixel convolution) per level -- image

Letters: `B` images, `H W` pixels, `h w` cells, `C` latent channels.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE, section 4.1: strided convolutions and residual blocks); He et
al. 2016 (pre-activation blocks); Shi et al. 2016 (sub-pixel convolution); Wu and He 2018 (group normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError

_GROUP = 8  # channels that are normalised together


class ConvAutoencoderError(TesseraError):
    """An encoder or decoder was given sizes that do not fit."""


def group_norm(channels: int, groups: int | None = None) -> nn.GroupNorm:
    """Return a group normalisation of `groups` groups, by default of groups of eight channels."""
    return nn.GroupNorm(max(1, channels // _GROUP) if groups is None else groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x' + conv silu norm conv silu norm x, x' through a 1 x 1 convolution where the number of channels changes.

    Args:
        inputs: Channels of x.
        outputs: Channels of the result.
        groups: Groups of both normalisations as a function of their channels; None for groups of eight channels.
    """

    def __init__(self, inputs: int, outputs: int, groups: int | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            group_norm(inputs, groups and min(groups, inputs)),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            group_norm(outputs, groups and min(groups, outputs)),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (B, outputs, h, w) of `x` (B, inputs, h, w)."""
        return self.shortcut(x) + self.body(x)


class ConvEncoder(nn.Module):
    """Images to latent maps of 2^levels times fewer rows and columns.

    Args:
        channels: Channels of every level, finest first; as many levels as entries.
        latent_dim: C.
        blocks: Residual blocks of a level.
    """

    def __init__(self, channels: Sequence[int], latent_dim: int, blocks: int = 1) -> None:
        super().__init__()
        _check(channels, latent_dim)
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in channels:
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1))
            layers += [ResidualBlock(outputs, outputs) for _ in range(blocks)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, latent_dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return latents (B, C, h, w) of images (B, 3, H, W), float in [0, 1]."""
        # Channels last is what the CPU's and the GPU's convolutions are fastest at.
        return self.layers((images * 2 - 1).contiguous(memory_format=torch.channels_last))


class ConvDecoder(nn.Module):
    """Latent maps to images of 2^levels times more rows and columns; the encoder's mirror image.

    Args:
        channels: Channels of every level, finest first, as for the encoder.
        latent_dim: C.
        blocks: Residual blocks of a level.
    """

    def __init__(self, channels: Sequence[int], latent_dim: int, blocks: int = 1) -> None:
        super().__init__()
        _check(channels, latent_dim)
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, channels[-1], 3, padding=1)]
        for level in reversed(range(len(channels))):
            inputs, outputs = channels[level], channels[level - 1] if level else 3
            layers += [ResidualBlock(inputs, inputs) for _ in range(blocks)]
            if not level:
                layers += [group_norm(inputs), nn.SiLU()]
            layers += [nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of latents (B, C, h, w)."""
        return self.layers(latents.contiguous(memory_format=torch.channels_last)) * 0.5 + 0.5


def cells_per_side(image_side: int, channels: Sequence[int]) -> int:
    """Return h = w of a square image's latent map.

    Raises:
        ConvAutoencoderError: The levels do not divide the image.
    """
    factor = 2 ** len(channels)
    if image_side % factor:
        raise ConvAutoencoderError(
            f"an image of {image_side} pixels cannot be halved {len(channels)} times (channels {list(channels)}); "
            f"choose a side that is a multiple of {factor}."
        )
    return image_side // factor


def to_vectors(maps: Tensor) -> Tensor:
    """Return the vectors (B, h w, C) of latent maps (B, C, h, w), row by row."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(vectors: Tensor, rows: int) -> Tensor:
    """Return the maps (B, C, rows, rows) of vectors (B, rows^2, C)."""
    return vectors.transpose(1, 2).unflatten(2, (rows, rows))


def cell_means(images: Tensor, side: int) -> Tensor:
    """Return images (B, 3, H, W) in which every cell of `side` pixels has its mean colour: a floor for reconstructions.

    Args:
        images: Float (B, 3, H, W), H and W multiples of `side`.
        side: Side of a cell in pixels.
    """
    return F.interpolate(F.avg_pool2d(images, side), scale_factor=side)


def _check(channels: Sequence[int], latent_dim: int) -> None:
    if not channels or min(channels) < 1 or latent_dim < 1:
        raise ConvAutoencoderError(
            f"channels {list(channels)} and latent_dim {latent_dim}: expected at least one level and positive sizes."
        )
