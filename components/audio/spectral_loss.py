"""Losses of waveforms in spectra of several windows.

    mel      mean |y_w - x_w| over windows w, y and x log-mel frames
    stft     mean |ln |Y_w| - ln |X_w|| over windows w

Letters: `B` batch, `S` samples, `W` window.

Sources: Yamamoto, Song, Kim 2020 (Parallel WaveGAN: losses over several resolutions); Kumar et al. 2023 (DAC, section
3.4: L1 of log-mel spectra at several windows).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError

WINDOWS = {128: 20, 256: 40, 512: 40, 1024: 80}
"""Mel bands by window in samples at 8 kHz: as many as bins allow without empty ones."""


class SpectralLossError(TesseraError):
    """A loss was asked for a window it does not have."""


class SpectralErrors(NamedTuple):
    """Mean absolute errors of log-mel frames and of log magnitudes, both in nats."""

    mel: Tensor
    stft: Tensor


class SpectralLoss(nn.Module):
    """Errors of log spectra, averaged over chosen windows.

    Args:
        sample_rate: Hz.
        floor: Least amplitude, as a share of full scale.
    """

    def __init__(self, sample_rate: int = 8_000, floor: float = 1e-4) -> None:
        super().__init__()
        self.floor = floor
        self.frames = nn.ModuleDict(
            {
                str(window): LogMelFrames(
                    sample_rate=sample_rate,
                    bands=bands,
                    window=window,
                    hop=window // 4,
                    transform=max(512, window),
                    floor=floor,
                )
                for window, bands in WINDOWS.items()
            }
        )

    def forward(self, waveform: Tensor, reference: Tensor, windows: Sequence[int] = tuple(WINDOWS)) -> SpectralErrors:
        """Compare waveforms (B, S) with references (B, S) at some windows.

        Raises:
            SpectralLossError: A window is none of WINDOWS, or shapes differ.
        """
        if strangers := set(windows) - set(WINDOWS):
            raise SpectralLossError(f"windows {sorted(strangers)}; expected some of {', '.join(map(str, WINDOWS))}.")
        if waveform.shape != reference.shape:
            raise SpectralLossError(f"waveforms {list(waveform.shape)} and {list(reference.shape)}; cut both alike.")
        mel, stft = [], []
        for window in windows:
            frames = self.frames[str(window)]
            scale = 1 / frames.stft.window.sum()
            one, other = (frames.stft(each).abs() * scale for each in (waveform, reference))
            triangles = frames.triangles / scale
            mel.append((self._log(one @ triangles) - self._log(other @ triangles)).abs().mean())
            stft.append((self._log(one) - self._log(other)).abs().mean())
        return SpectralErrors(torch.stack(mel).mean(), torch.stack(stft).mean())

    def _log(self, amplitudes: Tensor) -> Tensor:
        return amplitudes.clamp(min=self.floor).log()


def draw_windows(generator: torch.Generator, count: int = 2) -> tuple[int, ...]:
    """Draw some of the windows, each at most once: what one training step compares."""
    windows = list(WINDOWS)
    return tuple(windows[place] for place in torch.randperm(len(windows), generator=generator)[:count].tolist())
