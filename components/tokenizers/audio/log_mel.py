"""Log-mel spectra of a waveform, in dB.

    waveform -- windows of 25 ms every 10 ms -- |FFT|^2 -- mel bands -- 10 log10, floored -- frames of bands

Letters: `S` samples, `F` frames, `M` mel bands, `N` bins of the Fourier transform.

Sources: Stevens, Volkmann, Newman 1937 (the mel scale); Davis and Mermelstein 1980 (triangular mel bands); Young et al.
2006 (HTK book, section 5.4: the formula of the scale used here).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import TesseraError


class LogMelError(TesseraError):
    """A spectrum was asked for that has no meaning."""


class LogMel(nn.Module):
    """Power of a waveform in M mel bands, in dB of a full-scale constant, floored.

        P[f, n] = |sum_s w[s] x[f hop + s] exp(-2 pi i n s / N')|^2 / (sum_s w[s])^2
        y[f, m] = 10 log10(max(sum_n T[m, n] P[f, n], 10^(floor_db / 10)))

    with Hann window w and triangles T of peak 1 between neighbouring band edges, which are equally spaced on the mel
    scale. Frames lie wholly inside the waveform.

    Args:
        sample_rate: Hz.
        bands: M.
        hop: Samples between frames.
        window: Samples of a frame.
        transform: Length N' of the Fourier transform, samples; frames are padded with zeros to it.
        floor_db: Least value, dB.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 8_000,
        bands: int = 40,
        hop: int = 80,
        window: int = 200,
        transform: int = 512,
        floor_db: float = -80.0,
    ) -> None:
        super().__init__()
        if not 1 <= hop <= window <= transform:
            raise LogMelError(
                f"LogMel(hop={hop}, window={window}, transform={transform}): expected 1 <= hop <= window <= transform."
            )
        self.bands, self.hop, self.transform = bands, hop, transform
        self.floor = 10 ** (floor_db / 10)
        hann = torch.hann_window(window, dtype=torch.float64)
        self.register_buffer("window", (hann / hann.sum()).float(), persistent=False)
        self.register_buffer("triangles", mel_triangles(sample_rate, bands, transform).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the spectra (F, M), dB, of a waveform (S,); F = 0 where it is shorter than a window."""
        size = len(self.window)
        if len(waveform) < size:
            return waveform.new_zeros(0, self.bands)
        frames = waveform.unfold(0, size, self.hop) * self.window
        power = torch.fft.rfft(frames, self.transform).abs().square()
        return 10 * (power @ self.triangles.t()).clamp(min=self.floor).log10()


def mel_triangles(sample_rate: int, bands: int, transform: int) -> Tensor:
    """Return the weights T (M, N), float64, of the bins n sample_rate / transform of each mel band.

    Band m rises from edge m to edge m + 1 and falls to edge m + 2, linearly in Hz; the M + 2 edges are equally spaced
    in mel from 0 to half the sample rate. Between the first and the last peak the bands of every bin sum to 1.

    Raises:
        LogMelError: A band is so narrow that no bin lies in it.
    """
    top = hertz_to_mel(torch.tensor(sample_rate / 2, dtype=torch.float64))
    edges = mel_to_hertz(torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top)
    bins = torch.arange(transform // 2 + 1, dtype=torch.float64) * (sample_rate / transform)
    above, widths = bins - edges.unsqueeze(1), edges.diff().unsqueeze(1)
    rising, falling = above[:-2] / widths[:-1], -above[2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    empty = (triangles.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise LogMelError(
            f"mel band {empty[0]} of {bands} is narrower than a bin of {sample_rate / transform:.1f} Hz; use fewer "
            "bands or a longer transform."
        )
    return triangles


def hertz_to_mel(frequency: Tensor) -> Tensor:
    """Return 2595 log10(1 + f / 700)."""
    return 2595 * torch.log10(1 + frequency / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Return 700 (10^(m / 2595) - 1)."""
    return 700 * (10 ** (mel / 2595) - 1)
