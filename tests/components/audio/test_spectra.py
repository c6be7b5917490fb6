"""The grid of frames, the transform against numpy, its inverse, and mel bands of tones."""

import numpy as np
import pytest
import torch

from components.audio.spectra import LogMelFrames, SpectraError, Stft


@pytest.fixture
def noise():
    return torch.randn(2, 1_600, generator=torch.Generator().manual_seed(0))


def test_a_frame_is_the_fourier_transform_of_the_windowed_samples_around_its_hop(noise):
    spectra = Stft(320, 80)(noise)
    assert spectra.shape == (2, 20, 161)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320)
    for frame in (2, 10, 17):
        start = frame * 80 - 120
        expected = np.fft.rfft(noise[1, start : start + 320].double().numpy() * window)
        np.testing.assert_allclose(spectra[1, frame].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("window, transform", [(320, None), (256, 512), (128, 160)])
def test_the_inverse_gives_the_waveform_back_to_its_first_and_last_sample(noise, window, transform):
    stft = Stft(window, 80 if window != 128 else 32, transform)
    torch.testing.assert_close(stft.inverse(stft(noise)), noise, atol=2e-5, rtol=0)


def test_the_inverse_has_a_gradient_that_finite_differences_confirm():
    stft = Stft(16, 4).double()
    magnitudes = torch.rand(1, 5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: stft.inverse(torch.polar(m, torch.ones_like(m))), magnitudes)


def test_other_spectra_and_windows_are_refused():
    with pytest.raises(SpectraError, match="expected \\(B, T, 161\\)"):
        Stft(320, 80).inverse(torch.zeros(1, 3, 160, dtype=torch.complex64))
    with pytest.raises(SpectraError, match="window - hop even"):
        Stft(321, 80)


def test_a_tone_of_full_scale_is_loudest_in_its_band_with_the_amplitude_one_half():
    frames = LogMelFrames()
    peak = frames.triangles.argmax(0)[20]
    tone = torch.sin(2 * torch.pi * peak * (8_000 / 512) * torch.arange(4_000) / 8_000)
    spectra = frames(tone.unsqueeze(0))
    assert spectra.shape == (1, 50, 40)
    middle = spectra[0, 10:40]
    assert (middle.argmax(1) == 20).all()
    # A triangle sums the bins of the main lobe, which zero padding doubles: more than the peak, less than all of it.
    assert 0.5 < middle[:, 20].exp().mean() < 2.0


def test_silence_is_the_floor_and_frames_do_not_depend_on_the_batch():
    frames = LogMelFrames(floor=1e-3)
    torch.testing.assert_close(frames(torch.zeros(1, 800)), torch.full((1, 10, 40), np.log(1e-3)).float())
    waves = torch.randn(3, 1_000, generator=torch.Generator().manual_seed(1))
    together = frames(waves)
    assert together.shape == (3, 13, 40)
    for row in range(3):
        torch.testing.assert_close(frames(waves[row : row + 1])[0], together[row])
    # What comes later than half a window does not change a frame.
    torch.testing.assert_close(frames(waves[:, :800])[:, :8], together[:, :8])
