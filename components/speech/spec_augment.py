"""SpecAugment: blank out random stretches of frames and of bands, so that a recogniser reads with what is left.

Letters: `B` utterances, `F` frames, `M` bands, `m` masks.

Source: Park et al. 2019, "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", section 2
(time and frequency masks; no time warping).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.errors import TesseraError


@dataclass(frozen=True)
class SpecAugment:
    """How much is masked.

    Attributes:
        time_masks: Masks over frames of an utterance.
        time_width: Most frames of one; widths are uniform from 0.
        time_share: One is never wider than this share of the utterance.
        band_masks: Masks over bands.
        band_width: Most bands of one.
    """

    time_masks: int = 2
    time_width: int = 20
    time_share: float = 0.15
    band_masks: int = 2
    band_width: int = 8

    def __call__(self, spectra: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return spectra (B, F, M) with masked stretches set to 0, the mean of normalised spectra.

        Args:
            spectra: (B, F, M), mean 0.
            frames: Frames of each utterance, int64 (B,), on the device of the spectra.
            generator: On the device of the spectra.

        Raises:
            TesseraError: A mask could be wider than all bands.
        """
        if self.band_width > spectra.shape[2]:
            raise TesseraError(f"band_width is {self.band_width}, but there are {spectra.shape[2]} bands.")
        bands = torch.full_like(frames, spectra.shape[2])
        widest = torch.minimum((self.time_share * frames).long(), torch.full_like(frames, self.time_width))
        in_time = _masks(self.time_masks, widest, frames, spectra.shape[1], generator)
        in_band = _masks(self.band_masks, torch.full_like(bands, self.band_width), bands, spectra.shape[2], generator)
        return spectra.masked_fill(in_time[:, :, None] | in_band[:, None], 0.0)


def _masks(count: int, widest: Tensor, lengths: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the union of `count` stretches of each row, (B, size): width uniform in 0 .. widest, start anywhere."""
    draws = torch.rand(2, len(lengths), count, generator=generator, device=lengths.device)
    widths = (draws[0] * (widest + 1)[:, None]).long()
    starts = (draws[1] * (lengths[:, None] - widths + 1)).long()
    places = torch.arange(size, device=lengths.device)
    inside = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
    return inside.any(1)
