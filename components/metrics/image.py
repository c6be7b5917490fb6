"""Distortion of reconstructed images.

Letters: `B` images, `H W` pixels. Images are (B, 3, H, W): uint8 in [0, 255], or float in [0, 1]. Every function
returns one value per image.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from components.data.pixels import to_unit
from components.errors import TesseraError

# A perfect copy has infinite PSNR; lossless 8-bit images differ by at least one level in one of these many values, so
# this bound is above every value that a different image can have, and finite for tables and means.
PERFECT_PSNR = 120.0
_MS_SSIM_LEAST_SIDE = 161
_SSIM_RADIUS = 5


class ImageMetricError(TesseraError):
    """Images cannot be compared: other shapes, a wrong range, or too small for the metric."""


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every image in dB: -10 log10(mean squared error), peak 1.

    A perfect copy counts as PERFECT_PSNR dB.
    """
    images, references = _pair(images, references)
    mse = (images - references).square().flatten(1).mean(1)
    return (-10 * mse.log10()).clamp(max=PERFECT_PSNR)


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Structural similarity of every image, 11 x 11 Gaussian window (Wang et al. 2004, through torchmetrics).

    Averaged over the windows that lie inside the image, as published; torchmetrics' own mean counts reflected borders.
    """
    images, references = _pair(images, references)
    _, windows = structural_similarity_index_measure(
        images, references, data_range=1.0, reduction="none", return_full_image=True
    )
    inside = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return windows[..., inside, inside].flatten(1).mean(1)


def ms_ssim(images: Tensor, references: Tensor) -> Tensor:
    """Multi-scale structural similarity of every image, five scales (Wang et al. 2003, through torchmetrics).

    Raises:
        ImageMetricError: A side is below 161 pixels, where the coarsest of the five scales has no full window.
    """
    images, references = _pair(images, references)
    if min(images.shape[-2:]) < _MS_SSIM_LEAST_SIDE:
        raise ImageMetricError(
            f"ms_ssim needs sides of at least {_MS_SSIM_LEAST_SIDE} pixels, got {tuple(images.shape[-2:])}; use ssim."
        )
    values = multiscale_structural_similarity_index_measure(
        images, references, data_range=1.0, reduction="none", normalize="relu"
    )
    return values.reshape(-1)


def _pair(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != references.shape or images.dim() != 4:
        raise ImageMetricError(
            f"images have shape {tuple(images.shape)}, references {tuple(references.shape)}; expected the same "
            "(B, 3, H, W)."
        )
    return to_unit(images), to_unit(references)
