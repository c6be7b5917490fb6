"""Measures of speech against closed forms and peers: identity, loudness, silence, delay, clipping, tones."""

import math

import numpy as np
import pytest
import torch

from components.audio.spectra import LogMelFrames
from components.metrics.sanity import _voice
from components.metrics.speech_quality import (
    SpeechQualityError,
    mel_cepstral_distortion,
    mel_distance,
    pitch,
    pitch_errors,
    si_sdr,
    speaker_similarity,
    stoi,
)

FRAMES = LogMelFrames()
VOICE = _voice()


def noise(seed, deviation=0.1):
    return deviation * torch.randn(len(VOICE), generator=torch.Generator().manual_seed(seed))


def test_a_change_of_loudness_is_its_decibels_in_mel_distance_and_nothing_in_cepstral_distortion():
    wide = noise(0)
    assert mel_distance(wide / 10, wide, FRAMES) == pytest.approx(20, abs=0.01)
    assert mel_cepstral_distortion(wide / 10, wide, FRAMES) == pytest.approx(0, abs=1e-3)


def test_cepstral_distortion_is_the_deviation_of_the_spectrum_in_decibels_where_it_is_smooth():
    # By Parseval, of a difference a cos(pi k (m + 1/2) / M), 1 <= k <= 13, the root mean square is a / sqrt 2.
    frames = torch.randn(1, 6, 40)
    order, size = 5, 3.0
    ripple = size * torch.cos(math.pi * order * (torch.arange(40) + 0.5) / 40) * math.log(10) / 20
    tables = torch.cat([frames, frames + ripple])
    got = mel_cepstral_distortion(torch.zeros(480), torch.zeros(480), lambda _: tables)
    assert got == pytest.approx(size / math.sqrt(2), rel=1e-5)
    # Finer than 13 ripples is not heard.
    fine = size * torch.cos(math.pi * 20 * (torch.arange(40) + 0.5) / 40)
    assert mel_cepstral_distortion(
        torch.zeros(480), torch.zeros(480), lambda _: torch.cat([frames, frames + fine])
    ) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("decibels", [-10, 0, 15])
def test_si_sdr_is_the_ratio_of_signal_to_added_noise_that_is_uncorrelated(decibels):
    reference, other = noise(1), noise(2)
    reference, other = reference - reference.mean(), other - other.mean()
    other = other - (other @ reference) / (reference @ reference) * reference
    gain = reference.norm() / other.norm() * 10 ** (-decibels / 20)
    assert si_sdr(3 * (reference + gain * other), reference) == pytest.approx(decibels, abs=1e-3)


def test_si_sdr_has_bounds_at_identity_and_silence_and_falls_with_delay_and_clipping():
    assert si_sdr(VOICE, VOICE) == pytest.approx(100, abs=0.1)
    assert si_sdr(torch.zeros_like(VOICE), VOICE) == pytest.approx(-100)
    assert si_sdr(VOICE.roll(8), VOICE) < si_sdr(VOICE.roll(2), VOICE) < 30
    assert si_sdr(VOICE.clamp(-0.05, 0.05), VOICE) < si_sdr(VOICE.clamp(-0.2, 0.2), VOICE) < 60


def test_intelligibility_falls_with_noise_and_short_speech_has_none():
    scores = [stoi(VOICE + noise(3, level), VOICE) for level in (0.0, 0.05, 0.5)]
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[0] > scores[1] > scores[2]
    assert math.isnan(stoi(VOICE[:2_000], VOICE[:2_000]))


@pytest.mark.parametrize("hertz", [70.0, 123.4, 250.0, 390.0])
def test_the_pitch_of_harmonics_is_their_fundamental(hertz):
    time = torch.arange(8_000, dtype=torch.float64) / 8_000
    tone = sum(torch.sin(2 * math.pi * order * hertz * time + order) / order for order in range(1, 6))
    found = pitch(0.1 * tone)
    assert (found > 0).all()
    np.testing.assert_allclose(found.numpy(), hertz, rtol=0.01)


def test_noise_and_silence_have_no_pitch_and_an_octave_is_1200_cents():
    assert (pitch(noise(4)) == 0).double().mean() > 0.9
    assert (pitch(torch.zeros(4_000)) == 0).all()
    assert len(pitch(torch.zeros(100))) == 0
    time = torch.arange(8_000) / 8_000
    low, high = (sum(torch.sin(2 * math.pi * k * hertz * time) for k in (1, 2, 3)) for hertz in (110, 220))
    errors = pitch_errors(high, low)
    assert errors.cents == pytest.approx(1_200, abs=10)
    assert errors.voicing == 0
    assert pitch_errors(VOICE, VOICE).cents == 0
    lost = pitch_errors(torch.zeros_like(VOICE), VOICE)
    assert math.isnan(lost.cents)
    assert lost.voicing == pytest.approx(float((pitch(VOICE) > 0).double().mean()))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(SpeechQualityError, match="one length"):
        si_sdr(torch.zeros(5), torch.zeros(6))
    with pytest.raises(SpeechQualityError, match="one length"):
        mel_distance(torch.zeros(1, 800), torch.zeros(1, 800), FRAMES)
    with pytest.raises(SpeechQualityError, match="one network"):
        speaker_similarity(torch.zeros(2, 3), torch.zeros(2, 4))
