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


def test_an_utterance_has_the_same_slopes_alone_and_beside_a_longer_one():
    frames = torch.randn(2, 12, 40, generator=torch.Generator().manual_seed(0))
    together = with_slopes(frames, torch.tensor([12, 7]))
    assert together.shape == (2, 12, 39)
    alone = with_slopes(frames[1:, :7], torch.tensor([7]))
    torch.testing.assert_close(together[1, :7], alone[0])
    static = cepstra(frames[:1])
    expected = torch.cat([static, slopes(static), slopes(slopes(static))], -1)
    torch.testing.assert_close(together[:1], expected)
