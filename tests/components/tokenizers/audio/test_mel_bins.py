"""Bins against the nearest level by search, and the bound of a uniform quantizer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.audio.mel_bins import MelBins, MelBinsError

values = st.lists(st.floats(-12, 6, allow_nan=False, width=32), min_size=2, max_size=12)


@settings(deadline=None)
@given(values, st.integers(1, 6))
def test_a_value_becomes_its_nearest_level(numbers, bits):
    bins = MelBins(bands=1, bits=bits)
    spectra = torch.tensor(numbers)[:, None]
    levels = torch.linspace(-7, 2, 2**bits, dtype=torch.float64)
    distances = (spectra.double() - levels).abs()
    chosen = distances.gather(1, bins.encode(spectra))[:, 0]
    torch.testing.assert_close(chosen, distances.amin(1), atol=1e-12, rtol=0)


@settings(deadline=None)
@given(values, st.integers(1, 6))
def test_the_inverse_lies_within_half_a_bin_inside_the_range_and_clips_outside(numbers, bits):
    bins = MelBins(bands=2, bits=bits)
    spectra = torch.tensor(numbers)[:, None].expand(-1, 2)
    decoded = bins.decode(bins.encode(spectra))
    assert ((decoded - spectra.clamp(-7, 2)).abs() <= bins.step / 2 + 1e-6).all()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 99))
def test_coding_a_decoded_frame_changes_nothing(bits, seed):
    bins = MelBins(bands=3, bits=bits, lower=-80.0, upper=0.0)
    indices = torch.randint(2**bits, (5, 3), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(bins.encode(bins.decode(indices)), indices)


def test_levels_rise_with_the_value_and_reach_both_ends():
    bins = MelBins(bands=1, bits=4)
    indices = bins.encode(torch.linspace(-8, 3, 400)[:, None])[:, 0]
    assert (indices.diff() >= 0).all()
    assert set(indices.tolist()) == set(range(16))
    assert float(bins.step[0]) == pytest.approx(0.6)
    assert (bins.bits_per_frame, bins.vocabulary_size) == (4, 19)


def test_halfway_the_lower_level_wins_as_the_first_smallest_distance_does():
    bins = MelBins(bands=1, bits=2, lower=0.0, upper=3.0)
    assert bins.encode(torch.tensor([[0.5], [1.5], [2.5]])).flatten().tolist() == [0, 1, 2]


def test_a_frame_is_coded_alike_alone_and_in_a_stream():
    bins = MelBins(bands=4)
    spectra = torch.randn(20, 4) * 3 - 2
    assert torch.equal(torch.cat([bins.encode(part) for part in spectra.split(3)]), bins.encode(spectra))


def test_a_range_from_data_is_its_extremes_or_its_quantiles_together_or_by_channel():
    spectra = torch.stack([torch.arange(101.0), torch.arange(101.0) * 2 - 300], 1)
    bins = MelBins(bands=2)
    bins.fit_range(spectra)
    assert (bins.lower.tolist(), bins.upper.tolist()) == ([-300, -300], [100, 100])
    bins.fit_range(spectra, outside=0.05, per_channel=True)
    assert (bins.lower.tolist(), bins.upper.tolist()) == (pytest.approx([5, -290]), pytest.approx([95, -110]))
    with pytest.raises(MelBinsError, match="lower < upper"):
        bins.fit_range(torch.zeros(4, 2))


def test_special_frames_and_wrong_widths_are_named():
    bins = MelBins(bands=2)
    with pytest.raises(MelBinsError, match="Cut special frames"):
        bins.decode(torch.full((1, 2), bins.end))
    with pytest.raises(MelBinsError, match=r"expected \(\.\.\., 2\)"):
        bins.encode(torch.zeros(3, 4))
