"""ToMe: bipartite soft matching. Tokens at even places may join those at odd places, and the best k edges do.

1. A = places 0, 2, 4, ..., B = places 1, 3, 5, ... of the sequence, whatever stands there.
2. Every a in A has one edge, to its most similar b in B.
3. The k most similar edges are merged; the other tokens pass.

Letters: `B` sequences, `N` tokens, `k` tokens that vanish, `C` width of the metric.

Source: Bolya et al. 2023, "Token Merging: Your ViT But Faster", section 3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.compression.merging.plan import Depth, MergePlan, check_count


class ToMe:
    """The method."""

    needs_attention = False

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half.
        """
        batch, tokens, _ = metric.shape
        check_count(tokens, count)
        unit = F.normalize(metric, dim=-1)
        between = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
        places = torch.arange(tokens, device=metric.device).expand(batch, -1)
        return best_edges(between, places[:, ::2], places[:, 1::2], count)


def best_edges(between: Tensor, first: Tensor, second: Tensor, count: int) -> MergePlan:
    """Plan to merge the `count` most similar of the edges from each token of A to its most similar token of B.

    Args:
        between: Similarity of A and B, (B, |A|, |B|).
        first: A, int64 (B, |A|).
        second: B, int64 (B, |B|).
        count: k.

    Returns:
        The plan; the tokens of A that pass stand before those of B, both in the order given.
    """
    if not count:
        return MergePlan(torch.cat([first, second], 1), first[:, :0], first[:, :0])
    strength, partner = between.max(-1)
    best = strength.topk(count, dim=1, sorted=False).indices
    merges = torch.zeros_like(strength, dtype=torch.uint8).scatter_(1, best, 1)
    # A stable sort lists those that pass first, in order; a mask would make the host wait for the device.
    left = first.gather(1, merges.argsort(dim=1, stable=True)[:, : first.shape[1] - count])
    return MergePlan(torch.cat([left, second], 1), first.gather(1, best), partner.gather(1, best) + left.shape[1])


def build(**settings: Any) -> ToMe:
    """Build the method; it has no settings."""
    return ToMe(**settings)
