"""Log-mel spectra against sums written out, closed forms of the triangles, and tones of known power."""

import math

import numpy as np
import pytest
import torch

from components.tokenizers.audio.log_mel import LogMel, LogMelError, hertz_to_mel, mel_to_hertz, mel_triangles


def written_out(waveform: np.ndarray, *, rate=8_000, bands=40, hop=80, window=200, transform=512, floor=-80.0):
    """The definition, term by term, in float64: discrete Fourier sums, no transform."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    bins = np.arange(transform // 2 + 1)
    kernel = np.exp(-2j * np.pi * np.outer(bins, np.arange(window)) / transform)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = [700 * (10 ** (top * place / (bands + 1) / 2595) - 1) for place in range(bands + 2)]
    frames = []
    for start in range(0, len(waveform) - window + 1, hop):
        spectrum = kernel @ (waveform[start : start + window] * hann) / hann.sum()
        row = []
        for band in range(bands):
            low, peak, high = edges[band : band + 3]
            total = 0.0
            for bin, value in enumerate(spectrum):
                frequency = bin * rate / transform
                weight = min((frequency - low) / (peak - low), (high - frequency) / (high - peak))
                total += max(weight, 0) * abs(value) ** 2
            row.append(10 * math.log10(max(total, 10 ** (floor / 10))))
        frames.append(row)
    return np.array(frames)


def test_spectra_are_the_sums_of_the_definition():
    waveform = 0.1 * torch.randn(700, generator=torch.Generator().manual_seed(0))
    spectra = LogMel()(waveform)
    expected = written_out(waveform.double().numpy())
    assert spectra.shape == expected.shape == (7, 40)
    np.testing.assert_allclose(spectra.numpy(), expected, atol=2e-3)


def test_a_tone_has_its_power_in_the_band_of_its_frequency():
    for frequency in (300.0, 1000.0, 2500.0):
        tone = 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(8_000) / 8_000)
        mean = LogMel()(tone).mean(0)
        edges = mel_to_hertz(torch.linspace(0, 1, 42, dtype=torch.float64) * hertz_to_mel(torch.tensor(4_000.0)))
        loudest = int(mean.argmax())
        assert edges[loudest] < frequency < edges[loudest + 2]
        # The peak bin of a tone of amplitude a holds a^2 / 4; a band holds a few bins of the main lobe.
        assert -12.1 - 6 < float(mean[loudest]) < -12.0 + 6


def test_twice_the_amplitude_is_six_decibels_above_the_floor():
    waveform = 0.2 * torch.randn(2_000, generator=torch.Generator().manual_seed(1))
    quiet, loud = LogMel()(waveform), LogMel()(2 * waveform)
    torch.testing.assert_close(loud - quiet, torch.full_like(loud, 20 * math.log10(2)), atol=1e-3, rtol=0)


def test_silence_is_the_floor_and_frames_lie_inside_the_waveform():
    spectra = LogMel(floor_db=-60)(torch.zeros(200 + 3 * 80 + 79))
    assert spectra.shape == (4, 40)
    torch.testing.assert_close(spectra, torch.full((4, 40), -60.0))
    assert LogMel()(torch.zeros(199)).shape == (0, 40)


@pytest.mark.parametrize("bands", [8, 20, 40])
def test_triangles_cover_every_bin_between_the_outer_peaks_once(bands):
    triangles = mel_triangles(8_000, bands, 512)
    top = hertz_to_mel(torch.tensor(4_000.0, dtype=torch.float64))
    first, last = mel_to_hertz(top / (bands + 1)), mel_to_hertz(top * bands / (bands + 1))
    frequencies = torch.arange(257, dtype=torch.float64) * 8_000 / 512
    inside = (frequencies >= first) & (frequencies <= last)
    torch.testing.assert_close(triangles.sum(0)[inside], torch.ones(int(inside.sum()), dtype=torch.float64))
    assert (triangles >= 0).all()
    assert float(triangles.max()) <= 1


def test_the_scale_is_its_own_inverse_and_maps_a_thousand_hertz_to_a_thousand_mel():
    frequencies = torch.linspace(0, 4_000, 50, dtype=torch.float64)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(frequencies)), frequencies)
    assert float(hertz_to_mel(torch.tensor(1_000.0, dtype=torch.float64))) == pytest.approx(1_000, abs=0.02)


def test_bands_narrower_than_a_bin_and_frames_longer_than_the_transform_are_refused():
    with pytest.raises(LogMelError, match=r"narrower than a bin of 125\.0 Hz"):
        mel_triangles(8_000, 40, 64)
    with pytest.raises(LogMelError, match="hop <= window <= transform"):
        LogMel(window=600)
