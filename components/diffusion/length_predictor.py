"""How long the target will be, read off the encoder before anything is decoded.

    P(length = l) = softmax(W mean_s memory_s)_l,    l = 1 .. L

Letters: B sequences, S source tokens, D width, L longest length.

Source: Ghazvininejad et al. 2019, "Mask-Predict", section 3 (a class for each length, several candidates decoded).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from components.diffusion.schedules import DiffusionError


class LengthPredictor(nn.Module):
    """A linear classifier of lengths on the mean state of the source.

    Args:
        width: D.
        longest: L.
    """

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, longest)

    def forward(self, memory: Tensor, present: Tensor) -> Tensor:
        """Return logits of lengths 1 .. L, (B, L).

        Args:
            memory: Encoder states, (B, S, D).
            present: Which of them are no padding, bool (B, S).
        """
        weights = present[..., None].to(memory.dtype)
        return self.output((memory * weights).sum(1) / weights.sum(1).clamp(min=1))

    def loss(self, memory: Tensor, present: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean cross entropy of lengths (B,), in nats.

        Raises:
            DiffusionError: A length is 0 or above L (checked on the CPU only: elsewhere it would wait for the device).
        """
        longest = self.output.out_features
        if lengths.device.type == "cpu" and not bool(((lengths >= 1) & (lengths <= longest)).all()):
            raise DiffusionError(
                f"lengths from {int(lengths.min())} to {int(lengths.max())}; the head knows 1 to {longest}."
            )
        return F.cross_entropy(self(memory, present).float(), lengths - 1)

    def candidates(self, memory: Tensor, present: Tensor, count: int) -> Tensor:
        """Return the likeliest lengths, the likeliest first, int64 (B, count)."""
        return self(memory, present).topk(min(count, self.output.out_features), dim=1).indices + 1
