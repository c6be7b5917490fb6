"""Augmentation: ratios of powers, filters with a known response, silence that stays."""

import pytest
import torch

from components.speech.waveform_augmentation import WaveformAugmentation, low_passed


def white(count, length, generator):
    return torch.randn(count, length, generator=generator)


def test_noise_has_the_drawn_ratio_inside_the_utterance_and_ends_with_it():
    augment = WaveformAugmentation(1.0, (10.0, 10.0), 0.0, gain=(0.0, 0.0))
    samples = torch.tensor([4_000, 1_000])
    inside = torch.arange(4_000) < samples[:, None]
    speech = torch.sin(torch.arange(4_000) * 0.3).expand(2, -1) * inside
    noisy = augment(speech, samples, white, torch.Generator().manual_seed(0))
    ratio = speech.square().sum(1) / (noisy - speech).square().sum(1)
    torch.testing.assert_close(10 * ratio.log10(), torch.full((2,), 10.0), atol=1e-3, rtol=0)
    assert not noisy[1, 1_000:].any()


def test_a_filter_halves_the_amplitude_at_its_cutoff_and_keeps_what_is_far_below():
    time = torch.arange(8_000) / 8_000
    for frequency, expected in ((500.0, 1.0), (1_000.0, 0.5), (3_000.0, 0.0)):
        tone = torch.sin(2 * torch.pi * frequency * time)[None]
        found = low_passed(tone, torch.tensor([1_000.0]), 8_000)
        assert float(found.square().mean().sqrt() * 2**0.5) == pytest.approx(expected, abs=5e-3)


def test_shares_and_gains_are_those_asked_for():
    augment = WaveformAugmentation(0.3, (0.0, 0.0), 0.0, gain=(-6.0, -6.0))
    speech = torch.ones(400, 32)
    changed = augment(speech, torch.full((400,), 32), white, torch.Generator().manual_seed(1))
    clean = (changed - 10 ** (-0.3)).abs().amax(1) < 1e-5
    assert 0.6 < float(clean.float().mean()) < 0.8
