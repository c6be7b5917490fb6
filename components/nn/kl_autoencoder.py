"""A variational autoencoder of images whose latents stay continuous: the first stage of latent generators.

    image -- convolutions -- mean, log variance -- sample -- convolutions -- image

Letters: `B` images, `H W` pixels, `P` cells, `C` latent channels.

Sources: Kingma and Welling 2014 (the bound, appendix B: its closed form); Rombach et al. 2022 (latent diffusion,
section 3.1 and appendix G: a slight KL penalty, latents rescaled to unit deviation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.data.pixels import to_unit
from components.errors import TesseraError
from components.nn.conv_autoencoder import ConvDecoder, ConvEncoder, cells_per_side, to_maps, to_vectors

_LOG_VARIANCE_RANGE = (-20.0, 10.0)


class LatentScaleError(TesseraError):
    """Latents have no scale that they could be normalised by."""


class Variational(NamedTuple):
    """The result of one training pass.

    Attributes:
        images: Decoded images, float (B, 3, H, W), 0 to 1 but not clipped.
        kl: KL divergence of a cell to the standard normal in nats: summed over channels, mean over images and cells.
    """

    images: Tensor
    kl: Tensor


class KLAutoencoder(nn.Module):
    """Encoder to a Gaussian per cell and channel, and decoder; see the module.

    `latents` are posterior means, shifted by the mean of each channel and divided by one deviation for all, both
    measured once on training images by `measure`: what a prior over them is trained on.

    Args:
        image_side: H = W in pixels.
        channels: Channels of every level of encoder and decoder, finest first; each level halves the resolution.
        latent_dim: C.
        blocks: Residual blocks of a level.

    Attributes:
        rows: Cells along a side.
        cells: P.
        latent_dim: C.
        mean: Mean of each channel (C,).
        deviation: One standard deviation for all channels, ().
    """

    def __init__(self, *, image_side: int, channels: Sequence[int], latent_dim: int, blocks: int = 1) -> None:
        super().__init__()
        self.rows = cells_per_side(image_side, channels)
        self.cells = self.rows**2
        self.latent_dim = latent_dim
        self.encoder = ConvEncoder(channels, 2 * latent_dim, blocks)
        self.decoder = ConvDecoder(channels, latent_dim, blocks)
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("deviation", torch.ones(()))
        self.to(memory_format=torch.channels_last)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, each (B, P, C), of images (B, 3, H, W), uint8 or float in [0, 1]."""
        mean, log_variance = to_vectors(self.encoder(to_unit(images))).chunk(2, -1)
        return mean, log_variance.clamp(*_LOG_VARIANCE_RANGE)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Variational:
        """Encode, sample and decode.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1].
            generator: Source of the noise, on the images' device.
        """
        mean, log_variance = self.posterior(images)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        sample = mean + (log_variance / 2).exp() * noise
        return Variational(self.decoder(to_maps(sample, self.rows)), gaussian_kl(mean, log_variance).sum(-1).mean())

    def latents(self, images: Tensor) -> Tensor:
        """Return normalised posterior means (B, P, C) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return (self.posterior(images)[0] - self.mean) / self.deviation

    def decode_values(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of normalised latents (B, P, C)."""
        return self.decoder(to_maps(latents * self.deviation + self.mean, self.rows))

    @torch.no_grad()
    def measure(self, batches: Sequence[Tensor]) -> Tensor:
        """Set `mean` and `deviation` from batches of images, and return the deviation of each channel over it, (C,).

        Raises:
            LatentScaleError: The posterior means do not vary at all.
        """
        count, total, squares = 0, 0.0, 0.0
        for images in batches:
            means = self.posterior(images)[0].double().flatten(0, 1)
            count, total, squares = count + len(means), total + means.sum(0), squares + means.square().sum(0)
        centre = total / count
        variance = (squares / count - centre.square()).clamp(min=0)
        overall = variance.mean().sqrt()
        if not overall > 0:
            raise LatentScaleError("all latents are equal, so they have no scale; train the autoencoder first.")
        self.mean.copy_(centre)
        self.deviation.copy_(overall)
        return variance.sqrt() / overall


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, elementwise.

    (mean^2 + variance - 1 - log variance) / 2
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


# A description (components.bases) names this module and gives the arguments of its `build`.
build = KLAutoencoder
