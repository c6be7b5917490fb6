"""From features of frames to a waveform: magnitudes and phases of a short-time Fourier transform, inverted.

    (m, p) = W h_t,      X[t] = min(exp(m), largest) (cos p + i sin p),      x = iSTFT(X)

Letters: `B` batch, `T` frames, `D` width, `N` bins, `h` hop.

Source: Siuzdak 2023 (Vocos, section 3.2: exponential magnitudes, clipped, and phases on the unit circle).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.audio.spectra import Stft


class IstftHead(nn.Module):
    """A linear map to magnitudes and phases, and the inverse transform.

    Args:
        width: D.
        window: Samples of a frame.
        hop: h.
        largest: Bound of a magnitude; a sine of full scale has window / 4.
    """

    def __init__(self, width: int, window: int, hop: int, largest: float = 100.0) -> None:
        super().__init__()
        self.stft = Stft(window, hop)
        self.linear = nn.Linear(width, 2 * self.stft.bins)
        self.largest = largest

    def spectra(self, features: Tensor) -> Tensor:
        """Return spectra, complex (B, T, N), of features (B, T, D)."""
        magnitude, phase = self.linear(features).float().chunk(2, -1)
        return torch.polar(magnitude.exp().clamp(max=self.largest), phase)

    def forward(self, features: Tensor) -> Tensor:
        """Return waveforms (B, T h) of features (B, T, D)."""
        return self.stft.inverse(self.spectra(features))
