"""PiToMe: merge only inside large clusters of similar tokens, and leave what stands alone as it is.

    order by energy, highest first:   1 2 3 4 5 6 ... 2k | 2k+1 ... N
                                      A B A B A B     B  |  protected

1. Tokens are ordered by energy (`energy`). The first 2k may merge; the others pass untouched.
2. Neighbours in the order come to opposite sides: A has ranks 1, 3, 5, ..., B has ranks 2, 4, 6, ...
3. Every a in A joins its most similar b in B; several may join the same.

Letters: `B` sequences, `N` tokens, `k` tokens that vanish, `C` width of the metric.

Source: Tran et al. 2024 (PiToMe), section 3.2, algorithm 1.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from components.compression.merging.energy import Energy, directions, energies, margin_at
from components.compression.merging.plan import Depth, MergeError, MergePlan, check_count

Split = Literal["alternate", "halves", "random"]


class PiToMe:
    """The method.

    Args:
        energy: Which energy.
        margin: m_0, the margin of the first block.
        fall: By how much the margin falls until behind the last block; to zero where None.
        split: How the mergeable tokens are divided: by alternate ranks; the upper half joins the lower (the authors'
            choice for text); or at random, an ablation.
    """

    needs_attention = False

    def __init__(
        self, energy: Energy = "code", margin: float = 0.9, fall: float | None = None, split: Split = "alternate"
    ) -> None:
        if split not in ("alternate", "halves", "random"):
            raise MergeError(f"split is {split!r}; expected 'alternate', 'halves' or 'random'.")
        self.energy, self.margin, self.fall, self.split = energy, margin, fall, split

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half, or a random split is given no generator.
        """
        check_count(metric.shape[1], count)
        unit = directions(metric)
        scores = energies(unit, margin_at(self.margin, self.fall, depth), self.energy)
        order = scores.argsort(dim=1, descending=True, stable=True)
        return joined(unit, order, *self._sides(order, count, depth))

    def _sides(self, order: Tensor, count: int, depth: Depth) -> tuple[Tensor, Tensor]:
        mergeable = order[:, : 2 * count]
        if self.split == "alternate":
            return mergeable[:, ::2], mergeable[:, 1::2]
        if self.split == "random":
            mergeable = mergeable.gather(1, shuffled(mergeable, depth))
        return mergeable[:, :count], mergeable[:, count:]


def shuffled(like: Tensor, depth: Depth) -> Tensor:
    """Return a random order of the second axis for every row, int64 of the shape of `like`.

    Raises:
        MergeError: There is no generator.
    """
    if depth.generator is None:
        raise MergeError("this method draws at random and was given no generator; pass one.")
    keys = torch.rand(like.shape[:2], generator=depth.generator, device=depth.generator.device)
    return keys.to(like.device).argsort(1)


def joined(unit: Tensor, order: Tensor, first: Tensor, second: Tensor) -> MergePlan:
    """Plan that every token of A joins its most similar token of B, and that the rest passes.

    Args:
        unit: Directions of the metric, (B, N, C).
        order: All tokens, those of A and B before the others, int64 (B, N).
        first: A, int64 (B, k).
        second: B, int64 (B, k).

    Returns:
        The plan; protected tokens stand before those of B.
    """
    count = first.shape[1]
    protected = order[:, 2 * count :]
    # Of no token there is no most similar one.
    partners = similarities(unit, first, second).argmax(-1) if count else first
    return MergePlan(torch.cat([protected, second], 1), first, partners + protected.shape[1])


def similarities(unit: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return cosines (B, |A|, |B|) of tokens A and B, int64 (B, |A|) and (B, |B|), of directions (B, N, C)."""
    sides = (unit.gather(1, side[..., None].expand(-1, -1, unit.shape[2])) for side in (first, second))
    one, other = sides
    return one @ other.transpose(1, 2)


def build(**settings: Any) -> PiToMe:
    """Build the method from the arguments of PiToMe."""
    return PiToMe(**settings)
