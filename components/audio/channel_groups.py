"""From a hidden vector to the channels of the next frame: all at once, or group after group.

    in parallel    p(S | h) = prod_n softmax(W_n h)[S_n]
    in groups      p(S | h) = prod_g p(S_g | h, S_1 .. S_g-1),   a causal transformer of one layer over h, S_1, ...

Letters: `F` frames, `N` channels, `Q` ids of a channel, `D` width, `G` groups of N / G channels, `E` width
of a table's entry.

Sources: Bai et al. 2024, "dMel: Speech Tokenization made Simple", section 3 (in parallel); Yang et al. 2023, "UniAudio"
(a small transformer inside a frame).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig

Draw = Callable[[Tensor], Tensor]
"""Ids (F, n) drawn from logits (F, n, Q)."""


class ChannelGroupError(TesseraError):
    """Channels cannot be divided so."""


class ParallelHead(nn.Module):
    """One linear map to all channels.

    Args:
        width: D.
        channels: N.
        ids: Q.
    """

    def __init__(self, width: int, channels: int, ids: int) -> None:
        super().__init__()
        self.shape = (channels, ids)
        self.linear = nn.Linear(width, channels * ids)

    def forward(self, hidden: Tensor, entries: Tensor) -> Tensor:
        """Return logits (F, N, Q) behind hidden vectors (F, D); the frames themselves are not read."""
        return self.linear(hidden).unflatten(-1, self.shape)

    def draw(self, hidden: Tensor, draw: Draw, table: nn.Module) -> Tensor:
        """Draw frames (F, N) behind hidden vectors (F, D): one call."""
        return draw(self.linear(hidden).unflatten(-1, self.shape))


class ChannelGroupHead(nn.Module):
    """A transformer of one layer that goes through the groups of channels of a frame.

    Args:
        width: D.
        channels: N.
        ids: Q.
        channel_width: E, of an entry of the table that all channels share.
        group_size: N / G.
        heads: Attention heads.

    Raises:
        ChannelGroupError: Groups would not be equally large.
    """

    def __init__(self, width: int, channels: int, ids: int, channel_width: int, group_size: int, heads: int) -> None:
        super().__init__()
        if channels % group_size:
            raise ChannelGroupError(f"groups of {group_size} do not divide {channels} channels; choose a divisor.")
        self.shape = (group_size, ids)
        groups = channels // group_size
        self.join = nn.Linear(group_size * channel_width, width, bias=False)
        self.places = nn.Parameter(torch.randn(groups, width) * width**-0.5)
        self.transformer = Transformer(TransformerConfig(width, 1, heads, causal=True))
        self.output = nn.Parameter(torch.randn(groups, width, group_size * ids) * width**-0.5)

    def forward(self, hidden: Tensor, entries: Tensor) -> Tensor:
        """Return logits (F, N, Q) behind hidden vectors (F, D), every group from those before it.

        Args:
            hidden: (F, D).
            entries: The table's entries of the frames that are predicted, (F, N, E).
        """
        read = self.join(entries.unflatten(1, (-1, self.shape[0]))[:, :-1].flatten(2))
        states = self.transformer(torch.cat([hidden[:, None], read], 1) + self.places)
        logits = torch.einsum("fgd,gdq->fgq", states, self.output.to(states.dtype))
        return logits.unflatten(-1, self.shape).flatten(1, 2)

    def draw(self, hidden: Tensor, draw: Draw, table: nn.Module) -> Tensor:
        """Draw frames (F, N) behind hidden vectors (F, D), read through a table: one cached call a group."""
        cache, parts = KeyValueCache(len(self.places)), []
        for place, output in zip(self.places, self.output, strict=True):
            if parts:
                hidden = self.join(table(parts[-1]).flatten(1))
            state = self.transformer((hidden + place)[:, None], cache=cache)[:, 0]
            parts.append(draw((state @ output).unflatten(-1, self.shape)))
        return torch.cat(parts, 1)
