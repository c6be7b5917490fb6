"""Windows of one stream of tokens."""

import pytest
import torch

from components.language.stream_windows import ShortStream, StreamWindows


def test_drawn_windows_are_runs_of_the_stream_and_reach_both_its_ends():
    stream = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    windows = StreamWindows(stream, 5)
    drawn = windows.draw(400, torch.Generator().manual_seed(1))
    runs = {tuple(stream[start : start + 5].tolist()) for start in range(16)}
    assert {tuple(row) for row in drawn.tolist()} == runs
    assert windows.count == 16


def test_disjoint_windows_cover_the_stream_up_to_a_rest():
    assert StreamWindows(torch.arange(11), 4).disjoint().flatten().tolist() == list(range(8))


def test_a_stream_shorter_than_a_window_is_refused():
    with pytest.raises(ShortStream, match="3 tokens; expected at least 4"):
        StreamWindows(torch.arange(3), 4)
