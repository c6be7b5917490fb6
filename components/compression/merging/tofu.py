"""ToFu: the edges of ToMe, but in some blocks the tokens that would be merged are dropped.

Averages of tokens lie where a network that is far from linear has never been; where it is closer to linear, averages
keep more. The authors drop in the first half of the blocks and average in the second.

Source: Kim et al. 2024, "Token Fusion: Bridging the Gap between Token Pruning and Token Merging", section 3. Their
norm-preserving average (MLERP) is left out: the plain average of ToMe is used, so that only dropping differs.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from components.compression.merging.plan import Depth, MergeError, MergePlan
from components.compression.merging.tome import ToMe

Dropping = Literal["early", "late"]


class ToFu:
    """The method.

    Args:
        dropping: The half of the blocks in which tokens are dropped.
    """

    needs_attention = False

    def __init__(self, dropping: Dropping = "early") -> None:
        if dropping not in ("early", "late"):
            raise MergeError(f"dropping is {dropping!r}; expected 'early' or 'late'.")
        self.dropping = dropping
        self._matching = ToMe()

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: They are more than half.
        """
        early = 2 * depth.layer < depth.layers
        plan = self._matching.plan(metric, count, depth)
        return plan._replace(average=early != (self.dropping == "early"))


def build(**settings: Any) -> ToFu:
    """Build the method from the arguments of ToFu."""
    return ToFu(**settings)
