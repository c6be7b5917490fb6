"""Floating-point operations of networks whose tokens become fewer: counted as they run, and in closed form.

One multiplication with its addition counts as two. Of a block of width D that reads N tokens (class token included)
and whose MLP of h hidden channels reads N', with a merge that looks at cosines of a metric of width C,

    8 N D^2 + 4 N^2 D        projections and attention
    4 N' D h                 MLP
    2 M^2 C + 2 k^2 C        cosines of M = N - 1 tokens: all pairs, and A with B once more (PiToMe); or
    M^2 C / 2                those of the M / 2 tokens at even places with those at odd ones (ToMe)

Sorting, gathering and additions are not counted; they cost time all the same, which is measured beside.

Source: Tran et al. 2024 (PiToMe), appendix (FLOPs of a block).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def counted(work: Callable[[], object]) -> int:
    """Return the operations of the matrix products and convolutions that some work runs."""
    # The fused attention of the CPU is a closed box to the counter; this one consists of products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def block_flops(tokens: Sequence[int], width: int, hidden: int) -> float:
    """Return the operations of a stack of blocks, without what a reduction itself computes.

    Args:
        tokens: Tokens that the first block reads, and those that are left behind the reduction of each block; one
            more than there are blocks.
        width: D.
        hidden: h.
    """
    total = 0
    for before, after in itertools.pairwise(tokens):
        total += 8 * before * width**2 + 4 * before**2 * width + 4 * after * width * hidden
    return float(total)
