"""Log-mel frames at another rate or with fewer channels, and as they arrive: what cheap tokens of speech are made of.

Values are moved by linear interpolation between the middles of frames, (t + 1/2) h, and of channels; fewer channels are
means of neighbours.

Letters: `S` samples, `T` frames, `M` channels, `h` hop in samples, `W` window.

Source: the grid of components.audio.spectra; Bai et al. 2024 (a tokenizer that needs no future but its own window).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError


class FrameGridError(TesseraError):
    """Frames cannot be brought onto another grid."""


def at_hop(frames: Tensor, hop: int, new_hop: int, count: int) -> Tensor:
    """Return frames (..., T, M) of one hop as `count` frames of another.

        y[t] = (1 - a) x[floor u] + a x[floor u + 1],   u = (t + 1/2) h' / h - 1/2,   a = u - floor u

    Outside the first and the last middle the outermost frame stands.

    Raises:
        FrameGridError: There is no frame, or a hop is not positive.
    """
    if hop < 1 or new_hop < 1 or frames.dim() < 2 or not frames.shape[-2]:
        raise FrameGridError(f"frames {list(frames.shape)} at hop {hop} to {new_hop}; expected (..., T, M), T >= 1.")
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) * (new_hop / hop) - 0.5
    return _between(frames, middles, -2)


def fewer_channels(frames: Tensor, factor: int) -> Tensor:
    """Return means of `factor` neighbouring channels, (..., M) to (..., M / factor).

    Raises:
        FrameGridError: The factor does not divide the channels.
    """
    if factor < 1 or frames.shape[-1] % factor:
        raise FrameGridError(f"{frames.shape[-1]} channels cannot be averaged by {factor}; choose a divisor.")
    return frames.unflatten(-1, (-1, factor)).mean(-1)


def more_channels(frames: Tensor, channels: int) -> Tensor:
    """Return frames (..., M) interpolated to more channels, (..., channels): the way back of `fewer_channels`."""
    middles = (torch.arange(channels, dtype=torch.float64) + 0.5) * (frames.shape[-1] / channels) - 0.5
    return _between(frames, middles, -1)


def _between(values: Tensor, places: Tensor, axis: int) -> Tensor:
    places = places.clamp(0, values.shape[axis] - 1)
    low = places.floor().long()
    share = (places - low).to(values)
    share = share if axis == -1 else share[:, None]
    low = low.to(values.device)
    high = (low + 1).clamp(max=values.shape[axis] - 1)
    return values.index_select(axis, low) * (1 - share) + values.index_select(axis, high) * share


class FrameStream:
    """Frames of a waveform that arrives in pieces: a frame is given out as soon as its window is there.

    All pieces together give the frames of the whole waveform.

    Args:
        spectra: Frames of whole waveforms.
    """

    def __init__(self, spectra: LogMelFrames) -> None:
        self._spectra = spectra
        self._margin, self._hop = spectra.stft.margin, spectra.hop
        self._start()

    def _start(self) -> None:
        self._kept = torch.zeros(self._margin)
        self._given, self._heard = 0, 0

    def push(self, samples: Tensor) -> Tensor:
        """Take samples (S,) and return the frames (T, M) that are ready, none at first."""
        self._kept = torch.cat([self._kept.to(samples), samples])
        self._heard += len(samples)
        return self._ready(max(0, (len(self._kept) - self._spectra.stft.size) // self._hop + 1))

    def finish(self) -> Tensor:
        """Return the frames (T, M) that are left, whose windows reach over the end, and begin anew."""
        left = -(-self._heard // self._hop) - self._given
        needed = (left - 1) * self._hop + self._spectra.stft.size
        self._kept = torch.nn.functional.pad(self._kept, (0, max(0, needed - len(self._kept))))
        frames = self._ready(left)
        self._start()
        return frames

    def _ready(self, count: int) -> Tensor:
        if count <= 0:
            return self._kept.new_zeros(0, self._spectra.bands)
        stft = self._spectra.stft
        used = self._kept[: (count - 1) * self._hop + stft.size]
        windows = used.unfold(0, stft.size, self._hop) * stft.window
        amplitudes = torch.fft.rfft(windows, stft.transform).abs() @ self._spectra.triangles
        self._kept = self._kept[count * self._hop :]
        self._given += count
        return amplitudes.clamp(min=self._spectra.floor).log()
