"""Other rooms and other microphones: level, noise and low-pass filters for waveforms of a training batch.

Letters: `B` utterances, `S` samples.

Source: Ko et al. 2017, "A study on data augmentation of reverberant speech for robust speech recognition" (noise at a
drawn ratio of powers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.data.speech import mixed

Noise = Callable[[int, int, torch.Generator], Tensor]
"""(B, S, generator) -> noise (B, S)."""


@dataclass(frozen=True)
class WaveformAugmentation:
    """What is drawn for each utterance by itself; ranges are uniform.

    Attributes:
        noise_share: Share of utterances that noise is added to.
        signal_to_noise: Ratio of their powers, dB, least and most.
        low_pass_share: Share of utterances that are filtered.
        cutoff: Frequency above which a filter falls, Hz.
        gain: Change of level of every utterance, dB.
        sample_rate: Hz.
    """

    noise_share: float = 0.4
    signal_to_noise: tuple[float, float] = (5.0, 30.0)
    low_pass_share: float = 0.2
    cutoff: tuple[float, float] = (1_500.0, 3_500.0)
    gain: tuple[float, float] = (-15.0, 6.0)
    sample_rate: int = 8_000

    def __call__(self, waveform: Tensor, samples: Tensor, noise: Noise, generator: torch.Generator) -> Tensor:
        """Return changed waveforms (B, S), 0 behind the end.

        Args:
            waveform: (B, S), on the CPU.
            samples: int64 (B,).
            noise: Gives noise.
            generator: On the CPU.
        """
        count, length = waveform.shape
        inside = torch.arange(length) < samples[:, None]
        draws = torch.rand(5, count, generator=generator)
        # Noise is cut where the speech ends, so that the ratio is that of the utterance.
        noisy = mixed(waveform, noise(count, length, generator) * inside, _within(self.signal_to_noise, draws[1]))
        changed = torch.where((draws[0] < self.noise_share)[:, None], noisy, waveform)
        filtered = low_passed(changed, _within(self.cutoff, draws[3]), self.sample_rate)
        changed = torch.where((draws[2] < self.low_pass_share)[:, None], filtered, changed)
        return changed * 10 ** (_within(self.gain, draws[4])[:, None] / 20) * inside


def low_passed(waveform: Tensor, cutoff: Tensor, sample_rate: int) -> Tensor:
    """Filter waveforms (B, S) by 1 / (1 + (f / cutoff)^8), zero-phase, with a cutoff in Hz for each, (B,)."""
    frequency = torch.fft.rfftfreq(waveform.shape[1], 1 / sample_rate).to(waveform)
    response = 1 / (1 + (frequency / cutoff[:, None]) ** 8)
    return torch.fft.irfft(torch.fft.rfft(waveform) * response, waveform.shape[1])


def _within(limits: tuple[float, float], draws: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * draws
