"""PiToMe with the class token's attention in place of the energy: what it looks at is protected.

Letters: `B` sequences, `N` tokens, `k` tokens that vanish, `C` width of the metric.

Source: Tran et al. 2024 (PiToMe), ablation of the importance score.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from components.compression.merging.energy import directions
from components.compression.merging.pitome import joined
from components.compression.merging.plan import Depth, MergeError, MergePlan, check_count


class AttentionEnergy:
    """The method: tokens are ordered by attention, the least attended first; the first 2k may merge."""

    needs_attention = True

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half, or the attention is missing.
        """
        check_count(metric.shape[1], count)
        if depth.attention is None:
            raise MergeError("tokens are ordered by the class token's attention, which was not given; pass it.")
        order = depth.attention.argsort(dim=1, stable=True)
        return joined(directions(metric), order, order[:, : 2 * count : 2], order[:, 1 : 2 * count : 2])


def build(**settings: Any) -> AttentionEnergy:
    """Build the method; it has no settings."""
    return AttentionEnergy(**settings)
