"""Low-frequency energy against maps whose spectrum is known."""

import math

import pytest
import torch

from components.analysis.frequency_order import FrequencyOrderError, low_frequency_order, low_frequency_shares


def wave(rows: float, columns: float, side: int = 8) -> torch.Tensor:
    """A cosine with so many periods along rows and columns."""
    place = torch.arange(side, dtype=torch.float64) * 2 * math.pi / side
    return torch.cos(rows * place.unsqueeze(1) + columns * place)


def test_waves_lie_inside_or_outside_the_disc_by_their_frequency():
    maps = torch.stack([wave(0, 0), wave(1, 0), wave(1, 1), wave(2, 0), wave(2, 1), wave(4, 4)])
    shares = low_frequency_shares(maps.unsqueeze(0), radius=0.5)  # 2 of 4 periods
    torch.testing.assert_close(shares, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    wide = low_frequency_shares(maps.unsqueeze(0), radius=1.0)
    torch.testing.assert_close(wide, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64))


def test_energies_add_up_over_images():
    maps = torch.stack([3 * wave(1, 0), wave(4, 0) * 2**-0.5]).unsqueeze(1)
    # A cosine at half the sampling rate has twice the energy of another one, so the second map has half of one.
    energies = maps.square().sum((1, 2, 3))
    expected = float(energies[0] / energies.sum())
    assert float(low_frequency_shares(maps, 0.5)) == pytest.approx(expected)


def test_white_noise_has_the_share_of_the_frequencies_in_the_disc():
    maps = torch.randn(4000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    # Of 16 frequencies of a 4 x 4 map, five lie within one period: none, and one along either axis, both ways.
    assert float(low_frequency_shares(maps, 0.5)) == pytest.approx(5 / 16, abs=0.01)


def test_channels_are_sorted_from_coarse_to_fine():
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = torch.stack([wave(4, 4), wave(1, 0), wave(3, 3) + wave(0, 1)]).unsqueeze(0) + 0.05 * noise
    assert low_frequency_order(maps, 0.5) == [1, 2, 0]


def test_a_channel_of_zeros_has_no_share_and_what_is_no_map_is_refused():
    assert low_frequency_shares(torch.zeros(2, 1, 4, 4)).tolist() == [0.0]
    with pytest.raises(FrequencyOrderError, match="2 rows"):
        low_frequency_shares(torch.zeros(2, 3, 4))
    with pytest.raises(FrequencyOrderError, match="radius"):
        low_frequency_shares(torch.zeros(2, 3, 4, 4), radius=0.0)
