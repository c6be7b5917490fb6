"""Which tokens go on, which are merged into which: the one interface of every method that reduces tokens.

    metric (B, N, C), number to remove -- method --> MergePlan -- merged() --> tokens (B, n, D), sizes (B, n)

A method looks at a metric of the tokens (for example the keys of an attention) and plans; carrying the plan out is the
same for all. A token has a size, the number of original tokens that it stands for:

    s_b' = s_b + sum_{a -> b} s_a,      x_b' = (s_b x_b + sum_{a -> b} s_a x_a) / s_b'

so that sum_i s_i and sum_i s_i x_i stay what they are.

Letters: `B` sequences, `N` tokens before, `k` tokens that vanish, `n` = N - k tokens after, `C` width of the metric,
`D` width of a token, `P` original tokens.

Sources: Bolya et al. 2023 (ToMe), section 3 (sizes, proportional attention); Tran et al. 2024 (PiToMe), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from components.errors import TesseraError

_SLACK = 1e-9


class MergeError(TesseraError):
    """Tokens cannot be reduced as asked."""


class MergePlan(NamedTuple):
    """What becomes of N tokens.

    Attributes:
        kept: Tokens that go on, in their new order, int64 (B, n).
        gone: Tokens that vanish, int64 (B, k).
        into: Place among `kept` of the token that each of those joins, int64 (B, k).
        average: Whether they are averaged into it; otherwise they are dropped.
    """

    kept: Tensor
    gone: Tensor
    into: Tensor
    average: bool = True


class Depth(NamedTuple):
    """Where in a network tokens are reduced.

    Attributes:
        layer: Number of the block from 0.
        layers: Blocks in all.
        attention: Attention that the class token pays to each of the tokens, (B, N), where the method asks for it.
        generator: Source of randomness, on any device, where the method draws.
    """

    layer: int = 0
    layers: int = 1
    attention: Tensor | None = None
    generator: torch.Generator | None = None


class Reducer(Protocol):
    """A method.

    Attributes:
        needs_attention: Whether `Depth.attention` must be given.
    """

    needs_attention: bool

    def plan(self, metric: Tensor, count: int, depth: Depth) -> MergePlan:
        """Plan how `count` of the tokens with this metric (B, N, C) vanish.

        Raises:
            MergeError: So many cannot vanish at once.
        """
        ...


def to_remove(tokens: int, ratio: float) -> int:
    """Return k = floor(N - r N), the tokens that vanish at keep ratio r.

    Raises:
        MergeError: The ratio is not in [0.5, 1]: a token that vanishes needs another one to join.
    """
    if not 0.5 <= ratio <= 1:
        raise MergeError(f"the keep ratio of a layer is {ratio}; expected 0.5 to 1. Merge in several layers instead.")
    # 60 tokens at 0.9 lose 6 of them, not 5, whatever 60 * 0.9 rounds to.
    return math.floor(tokens - ratio * tokens + _SLACK)


def check_count(tokens: int, count: int) -> None:
    """Refuse to remove more than half of the tokens at once.

    Raises:
        MergeError: `count` is negative or more than half.
    """
    if not 0 <= 2 * count <= tokens:
        raise MergeError(f"{count} of {tokens} tokens cannot vanish in one step; expected 0 to {tokens // 2}.")


def merged(plan: MergePlan, tokens: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Carry a plan out: merge or drop.

    Tokens that nothing joins are copied, bit by bit. Of dropped tokens the mass is lost.

    Args:
        plan: The plan.
        tokens: (B, N, D).
        sizes: (B, N); ones where None.

    Returns:
        Tokens (B, n, D) and their sizes (B, n).
    """
    batch, count, width = tokens.shape
    sizes = tokens.new_ones(batch, count) if sizes is None else sizes
    rows = torch.arange(batch, device=tokens.device)[:, None]
    flat = tokens.reshape(batch * count, width)
    kept = flat.index_select(0, (plan.kept + rows * count).flatten())
    kept_sizes = sizes.gather(1, plan.kept)
    if plan.average and plan.gone.shape[1]:
        gone_sizes = sizes.gather(1, plan.gone)
        totals = kept_sizes.scatter_add(1, plan.into, gone_sizes)
        # x_b' = x_b + sum_a (s_a / s_b') (x_a - x_b): only what is joined is touched, and duplicates add up.
        into = (plan.into + rows * plan.kept.shape[1]).flatten()
        weights = (gone_sizes / totals.gather(1, plan.into)).flatten()
        steps = flat.index_select(0, (plan.gone + rows * count).flatten()) - kept.index_select(0, into)
        kept, kept_sizes = kept.index_add(0, into, steps * weights[:, None]), totals
    return kept.view(batch, -1, width), kept_sizes


def behind_class_token(plan: MergePlan) -> MergePlan:
    """Return the plan for sequences with a class token before the planned tokens; it stays, and stays the first."""
    return MergePlan(
        torch.cat([torch.zeros_like(plan.kept[:, :1]), plan.kept + 1], 1), plan.gone + 1, plan.into + 1, plan.average
    )


def destinations(plan: MergePlan) -> Tensor:
    """Return where each of the N tokens ends, a place among the n, int64 (B, N); -1 for dropped ones."""
    batch, count = plan.kept.shape
    places = plan.kept.new_empty(batch, count + plan.gone.shape[1])
    order = torch.arange(count, device=places.device).expand(batch, -1)
    places.scatter_(1, plan.kept, order)
    return places.scatter_(1, plan.gone, plan.into if plan.average else torch.full_like(plan.into, -1))


def groups(plans: Sequence[MergePlan]) -> Tensor:
    """Return where each original token ends after several plans in a row, int64 (B, P); -1 for dropped ones.

    Raises:
        MergeError: There is no plan.
    """
    if not plans:
        raise MergeError("there is no plan to follow; expected one or more.")
    ends = destinations(plans[0])
    for plan in plans[1:]:
        found = destinations(plan).gather(1, ends.clamp_min(0))
        ends = torch.where(ends < 0, ends, found)
    return ends


def log_sizes(sizes: Tensor) -> Tensor:
    """Return the bias log s of proportional attention, (B, 1, 1, N): softmax(q k^T / sqrt(C) + log s).

    A token of size s is attended to like s equal tokens.
    """
    return sizes.log()[:, None, None]


def weighted_mean(tokens: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Return sum_i s_i x_i / sum_i s_i, (B, D): global average pooling of merged tokens (B, N, D)."""
    if sizes is None:
        return tokens.mean(1)
    return (tokens * sizes[..., None]).sum(1) / sizes.sum(1, keepdim=True)


def reduce_to(
    reducer: Reducer, tokens: Tensor, count: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, list[MergePlan]]:
    """Reduce tokens to a number outside a network, at most half of them in a step, with the tokens as the metric.

    Args:
        reducer: The method.
        tokens: (B, N, D).
        count: Tokens that remain, 1 to N.
        generator: For methods that draw.

    Returns:
        Tokens (B, count, D), their sizes (B, count) and the plans in order.

    Raises:
        MergeError: There are fewer tokens.
    """
    if not 1 <= count <= tokens.shape[1]:
        raise MergeError(f"{tokens.shape[1]} tokens cannot be reduced to {count}; expected 1 to {tokens.shape[1]}.")
    sizes = tokens.new_ones(tokens.shape[:2])
    plans = []
    while tokens.shape[1] > count:
        step = min(tokens.shape[1] - count, tokens.shape[1] // 2)
        plans.append(reducer.plan(tokens, step, Depth(generator=generator)))
        tokens, sizes = merged(plans[-1], tokens, sizes)
    return tokens, sizes, plans
