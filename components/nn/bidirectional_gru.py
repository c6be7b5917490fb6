"""Recurrent layers that read both ways, each utterance from its own end.

Letters: `B` sequences, `T` frames, `D` width, `G` hidden channels of one direction.

Sources: Cho et al. 2014 (gated recurrent unit); Schuster and Paliwal 1997 (bidirectional networks).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BidirectionalGRU(nn.Module):
    """Layers of two GRUs, one from the front and one from the back of each sequence, side by side.

    Padding comes behind a sequence: the forward one has passed it by then, and for the backward one every sequence is
    turned round within its own length. So no packing is needed, and no length has to leave the device.

    Args:
        width: D.
        hidden: G.
        layers: Pairs of GRUs, one on top of another.
        dropout: Share of channels dropped before every layer but the first.
    """

    def __init__(self, width: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [width] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(nn.GRU(each, hidden, batch_first=True) for each in widths)
        self.backwards = nn.ModuleList(nn.GRU(each, hidden, batch_first=True) for each in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Return states (B, T, 2 G), 0 behind the end, of sequences (B, T, D) with lengths (B,) on their device."""
        places = torch.arange(sequences.shape[1], device=sequences.device)
        inside = (places < lengths[:, None])[..., None]
        turned = torch.where(inside[..., 0], lengths[:, None] - 1 - places, places)[..., None]
        for layer, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            read = self.dropout(sequences) if layer else sequences
            backward = back(read.gather(1, turned.expand_as(read)))[0]
            sequences = torch.cat([ahead(read)[0], backward.gather(1, turned.expand_as(backward))], -1)
            sequences = sequences.masked_fill(~inside, 0.0)
        return sequences
