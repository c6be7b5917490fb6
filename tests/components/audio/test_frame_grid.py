"""Frames on other grids against closed forms, and frames of a stream against those of the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.audio.frame_grid import FrameGridError, FrameStream, at_hop, fewer_channels, more_channels
from components.audio.spectra import LogMelFrames
from components.tokenizers.audio.mel_bins import MelBins

SPECTRA = LogMelFrames(hop=200)


def test_a_line_stays_a_line_at_another_rate():
    slow = ((torch.arange(12, dtype=torch.float64) + 0.5) * 200)[:, None]
    fast = at_hop(slow, 200, 80, 30)[:, 0]
    middles = (torch.arange(30, dtype=torch.float64) + 0.5) * 80
    torch.testing.assert_close(fast, middles.clamp(100, 2_300))


def test_the_same_rate_and_the_same_channels_change_nothing():
    frames = torch.randn(2, 7, 6)
    assert torch.equal(at_hop(frames, 80, 80, 7), frames)
    assert torch.equal(more_channels(frames, 6), frames)


def test_fewer_channels_are_means_and_a_line_over_channels_comes_back_inside():
    line = torch.arange(8.0)[None]
    pairs = fewer_channels(line, 2)
    assert pairs.tolist() == [[0.5, 2.5, 4.5, 6.5]]
    assert more_channels(pairs, 8)[0, 1:-1].tolist() == pytest.approx([1, 2, 3, 4, 5, 6])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.integers(0, 99))
def test_tokens_of_a_stream_in_pieces_are_those_of_the_whole(pieces, seed):
    waveform = torch.randn(sum(pieces), generator=torch.Generator().manual_seed(seed)) * 0.1
    bins = MelBins(lower=-9.3, upper=0.0)
    stream = FrameStream(SPECTRA)
    parts = [stream.push(part) for part in waveform.split(pieces)] + [stream.finish()]
    whole = SPECTRA(waveform[None])[0]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-4, rtol=0)
    same = bins.encode(torch.cat(parts)) == bins.encode(whole)
    # Sums of another order round otherwise; a value that lies on the edge of two levels may fall to either side.
    assert same.float().mean() > 0.999


def test_tokens_of_a_frame_depend_on_the_samples_of_its_window_only():
    bins = MelBins(lower=-9.3, upper=0.0)
    waveform = torch.randn(4_000, generator=torch.Generator().manual_seed(1)) * 0.1
    margin = SPECTRA.stft.margin
    frame = 9
    outside = torch.ones(4_000, dtype=torch.bool)
    outside[frame * 200 - margin : (frame + 1) * 200 + margin] = False
    changed = torch.where(outside, torch.randn(4_000, generator=torch.Generator().manual_seed(2)), waveform)
    one, other = (bins.encode(SPECTRA(each[None]))[0] for each in (waveform, changed))
    assert torch.equal(one[frame], other[frame])
    assert not torch.equal(one[frame - 1], other[frame - 1])


def test_a_stream_begins_anew_after_its_end():
    stream, waveform = FrameStream(SPECTRA), torch.randn(500)
    first = torch.cat([stream.push(waveform), stream.finish()])
    assert torch.equal(torch.cat([stream.push(waveform), stream.finish()]), first)


def test_impossible_grids_are_refused():
    with pytest.raises(FrameGridError, match="by 3"):
        fewer_channels(torch.zeros(1, 8), 3)
    with pytest.raises(FrameGridError, match="hop 0"):
        at_hop(torch.zeros(3, 8), 0, 80, 3)
