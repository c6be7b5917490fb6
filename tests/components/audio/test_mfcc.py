"""Cepstra against scipy's cosine transform, slopes against lines and the regression written out."""

import torch
from scipy.fft import dct

from components.audio.mfcc import cepstra, slopes, with_slopes


def test_cepstra_are_the_orthonormal_cosine_transform():
    frames = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(dct(frames.numpy(), type=2, norm="ortho", axis=-1)[..., :13])
    torch.testing.assert_close(cepstra(frames), expected)


def test_the_slope_of_a_line_is_its_slope_and_elsewhere_the_regression():
    line = 3.0 * torch.arange(9.0)[None, :, None]
    torch.testing.assert_close(slopes(line)[:, 2:-2], torch.full((1, 5, 1), 3.0))
    frames = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(0))
    expected = sum(n * (frames[:, 4 + n] - frames[:, 4 - n]) for n in (1, 2)) / 10
    torch.testing.assert_close(slopes(frames)[:, 4], expected)
    assert with_slopes(torch.randn(2, 7, 40)).shape == (2, 7, 39)
