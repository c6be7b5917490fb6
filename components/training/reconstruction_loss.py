"""The loss between an image and its reconstruction.

Letters: `B` images, `H W` pixels, `F` width of the penultimate features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pixel_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the mean squared pixel error on the scale the networks work on, -1 to 1 (four times that of 0 to 1).

    Args:
        images: Float (B, 3, H, W), 0 to 1.
        references: Float (B, 3, H, W), 0 to 1.
    """
    return 4 * (images - references).square().mean()


def feature_error(network: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    """Return ||phi(x) - phi(x_hat)||^2 / F, averaged over images: the perceptual part of the loss.

    Args:
        network: Frozen network with `features(images) -> (B, F)`; the gradient passes through it to `images` only.
        images: Reconstructions, float (B, 3, H, W), 0 to 1.
        references: Originals, float (B, 3, H, W), 0 to 1.
    """
    with torch.no_grad():
        wanted = network.features(references)
    return (network.features(images) - wanted).square().mean()
