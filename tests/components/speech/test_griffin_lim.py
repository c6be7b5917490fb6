"""Griffin-Lim on a known signal, and magnitudes whose mel bands are known."""

import pytest
import torch

from components.audio.spectra import LogMelFrames, Stft
from components.speech.griffin_lim import GriffinLimError, griffin_lim, magnitudes_of, resynthesised

STFT = Stft(256, 64)


def chirp(samples=3_200) -> torch.Tensor:
    time = torch.arange(samples) / 8_000
    return (torch.sin(2 * torch.pi * (300 + 800 * time) * time) * torch.hann_window(samples))[None]


def misfit(waveform, magnitudes) -> float:
    return float((STFT(waveform).abs() - magnitudes).norm() / magnitudes.norm())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_plain_algorithm_never_gets_worse_and_momentum_gets_near_the_signal():
    magnitudes = STFT(chirp()).abs()
    errors = [
        misfit(griffin_lim(magnitudes, STFT, iterations=count, generator=generator(), momentum=0.0), magnitudes)
        for count in (1, 4, 16, 40)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]
    fast = griffin_lim(magnitudes, STFT, iterations=60, generator=generator())
    assert misfit(fast, magnitudes) < min(0.1, errors[-1])


def test_magnitudes_have_the_mel_bands_they_were_made_from():
    frames = LogMelFrames(window=256, hop=80)
    mel = frames(chirp() + 0.01 * torch.randn(1, 3_200, generator=generator()))
    found = magnitudes_of(mel, frames)
    assert (found >= 0).all()
    again = (found @ frames.triangles).clamp(min=frames.floor).log()
    assert float((again - mel).abs().mean()) < 0.05


def test_resynthesis_keeps_length_and_most_of_the_bands_and_is_repeatable():
    frames = LogMelFrames(window=256, hop=80)
    waveform = chirp(3_217)
    one, two = (resynthesised(waveform, frames, iterations=30, generator=generator()) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == waveform.shape
    loud = frames(waveform) > -5
    assert float((frames(one) - frames(waveform))[loud].abs().mean()) < 0.3


def test_no_iteration_is_refused():
    with pytest.raises(GriffinLimError, match="iterations is 0"):
        griffin_lim(torch.ones(1, 2, 129), STFT, iterations=0, generator=generator())
