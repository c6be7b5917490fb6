"""Short-time spectra of waveforms, their inverse, and log-mel frames, on one grid of frames.

Frame t of hop h covers the samples around the middle of [t h, (t + 1) h): the waveform gets (W - h) / 2 zeros on both
sides, so that S = T h samples have exactly T frames, and what a frame holds does not depend on its batch or on what
follows later than (W - h) / 2 samples.

Letters: `B` batch, `S` samples, `T` frames, `h` hop, `W` window in samples, `N` bins, `M` mel bands.

Sources: Griffin and Lim 1984 (least-squares inverse of the short-time Fourier transform); Davis and Mermelstein 1980
(mel bands); Siuzdak 2023 (Vocos: frames that cover their own hop, "same" padding).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.tokenizers.audio.log_mel import mel_triangles


class SpectraError(TesseraError):
    """A waveform or a spectrum does not fit the transform."""


class Stft(nn.Module):
    """Short-time Fourier transform with a Hann window, and its inverse.

        X[t, n] = sum_s w[s] x[t h - (W - h) / 2 + s] exp(-2 pi i n s / N')

    The inverse is that of least squares, so `inverse(forward(x)) = x` for S = T h.

    Args:
        window: W, at least h and with W - h even.
        hop: h.
        transform: Length N' of the Fourier transform, W by default; windows are padded with zeros to it.
    """

    def __init__(self, window: int, hop: int, transform: int | None = None) -> None:
        super().__init__()
        transform = window if transform is None else transform
        if not 1 <= hop <= window <= transform or (window - hop) % 2:
            raise SpectraError(
                f"Stft(window={window}, hop={hop}, transform={transform}): expected 1 <= hop <= window <= transform, "
                "and window - hop even."
            )
        self.size, self.hop, self.transform = window, hop, transform
        self.margin = (window - hop) // 2
        self.bins = transform // 2 + 1
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return spectra, complex (B, T, N), of waveforms (B, S); a last hop that is not full is filled with zeros."""
        missing = -waveform.shape[-1] % self.hop
        padded = F.pad(waveform, (self.margin, self.margin + missing))
        return torch.fft.rfft(padded.unfold(-1, self.size, self.hop) * self.window, self.transform)

    def inverse(self, spectra: Tensor) -> Tensor:
        """Return the waveforms (B, T h) nearest in the sense of least squares to spectra (B, T, N).

            x[s] = sum_t w[s - t h] y_t[s - t h] / sum_t w^2[s - t h]

        Raises:
            SpectraError: The spectra have other bins.
        """
        if spectra.dim() != 3 or spectra.shape[-1] != self.bins:
            raise SpectraError(f"spectra {list(spectra.shape)}; expected (B, T, {self.bins}).")
        frames = torch.fft.irfft(spectra, self.transform)[..., : self.size] * self.window
        count = frames.shape[1]
        total = (count - 1) * self.hop + self.size
        # Overlap-add of single frames is what fold does.
        added = F.fold(frames.transpose(1, 2), (1, total), (1, self.size), stride=(1, self.hop)).flatten(1)
        weights = self.window.square().view(1, -1, 1).expand(1, -1, count)
        envelope = F.fold(weights, (1, total), (1, self.size), stride=(1, self.hop)).flatten(1)
        inside = slice(self.margin, self.margin + count * self.hop)
        return added[:, inside] / envelope[:, inside].clamp(min=1e-8)


class LogMelFrames(nn.Module):
    """Natural logarithm of amplitudes in M mel bands, for batches of waveforms.

        y[t, m] = ln max(sum_n T[m, n] |X[t, n]| / sum_s w[s], floor)

    with triangles T of peak 1 (components.tokenizers.audio.log_mel). A sine of full scale has amplitude 1/2.

    Args:
        sample_rate: Hz.
        bands: M.
        window: W.
        hop: h.
        transform: Length of the Fourier transform.
        floor: Least amplitude.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 8_000,
        bands: int = 40,
        window: int = 256,
        hop: int = 80,
        transform: int = 512,
        floor: float = 1e-4,
    ) -> None:
        super().__init__()
        self.stft = Stft(window, hop, transform)
        self.bands, self.hop, self.floor = bands, hop, floor
        weights = mel_triangles(sample_rate, bands, transform) / torch.hann_window(window, dtype=torch.float64).sum()
        self.register_buffer("triangles", weights.float().t().contiguous(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return log-mel frames (B, T, M) of waveforms (B, S), T = ceil(S / h)."""
        return (self.stft(waveform).abs() @ self.triangles).clamp(min=self.floor).log()
