"""PiToMe without protection: the energy orders the tokens, but any of them may merge.

All N tokens, not the first 2k, are divided by alternate ranks of their energy; of the edges from A to the most similar
token in B the k most similar are merged. The authors use it in some early blocks; here it is the ablation that
shows what protecting tokens of low energy is worth.

Letters: `B` sequences, `N` tokens, `k` tokens that vanish, `C` width of the metric.

Source: Tran et al. 2024 (PiToMe), released code (the bipartite variant).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from components.compression.merging.energy import Energy, directions, energies, margin_at
from components.compression.merging.pitome import similarities
from components.compression.merging.plan import Depth, MergePlan, check_count
from components.compression.merging.tome import best_edges


class PiToMeBipartite:
    """The method.

    Args:
        energy: Which energy.
        margin: m_0, the margin of the first block.
        fall: By how much the margin falls until behind the last block; to zero where None.
    """

    needs_attention = False

    def __init__(self, energy: Energy = "code", margin: float = 0.9, fall: float | None = None) -> None:
        self.energy, self.margin, self.fall = energy, margin, fall

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half.
        """
        check_count(metric.shape[1], count)
        unit = directions(metric)
        scores = energies(unit, margin_at(self.margin, self.fall, depth), self.energy)
        order = scores.argsort(dim=1, descending=True, stable=True)
        first, second = order[:, ::2], order[:, 1::2]
        return best_edges(similarities(unit, first, second), first, second, count)


def build(**settings: Any) -> PiToMeBipartite:
    """Build the method from the arguments of PiToMeBipartite."""
    return PiToMeBipartite(**settings)
