"""What a network of speech frames does not see in training: stretches of frames, bands of channels.

Letters: `B` utterances, `T` frames, `N` channels.

Sources: Bai et al. 2024, "dMel: Speech Tokenization made Simple" (spans of the history, so that the text is read); Park
et al. 2019 (SpecAugment: bands).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


class FrameMaskError(TesseraError):
    """Masks were asked for that cannot be drawn."""


def drawn_spans(counts: Tensor, length: int, share: float, span: int, generator: torch.Generator) -> Tensor:
    """Draw which frames are hidden: stretches of `span` frames that start anywhere, until about `share` of all are.

    A frame starts a stretch with probability q so that 1 - (1 - q)^span = share.

    Args:
        counts: Frames of each utterance, int64 (B,), on the CPU.
        length: T.
        share: Expected share of hidden frames, below 1.
        span: Frames of a stretch.
        generator: On the CPU.

    Returns:
        bool (B, T).
    """
    if not 0 <= share < 1 or span < 1:
        raise FrameMaskError(f"share is {share}, span is {span}; expected 0 <= share < 1 and a span of 1 or more.")
    rate = 1 - (1 - share) ** (1 / span)
    # Starts before the first frame, too, so that every frame is hidden as often.
    starts = torch.rand(len(counts), length + span - 1, generator=generator) < rate
    covered = starts.unfold(1, span, 1).any(-1)
    return covered & (torch.arange(length) < counts[:, None])


def drawn_bands(count: int, channels: int, widest: int, generator: torch.Generator) -> Tensor:
    """Draw a band of 0 to `widest` neighbouring channels that is hidden in each utterance, bool (B, N)."""
    draws = torch.rand(2, count, generator=generator)
    widths = (draws[0] * (widest + 1)).long()
    starts = (draws[1] * (channels - widths + 1)).long()
    places = torch.arange(channels)
    return (places >= starts[:, None]) & (places < (starts + widths)[:, None])
