"""The floor of every comparison: k pairs of tokens that are drawn at random are merged.

Letters: `B` sequences, `N` tokens, `k` tokens that vanish, `C` width of the metric.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.compression.merging.pitome import shuffled
from components.compression.merging.plan import Depth, MergePlan, check_count


class RandomPairs:
    """The method."""

    needs_attention = False

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half, or there is no generator.
        """
        batch, tokens, _ = metric.shape
        check_count(tokens, count)
        order = shuffled(metric[..., 0], depth)
        into = torch.arange(count, device=metric.device).expand(batch, -1)
        return MergePlan(order[:, count:], order[:, :count], into)


def build(**settings: Any) -> RandomPairs:
    """Build the method; it has no settings."""
    return RandomPairs(**settings)
