"""Ranks of true links among all nodes.

Letters: `B` queries, `N` nodes.

Source: Bordes et al. 2013 (TransE, section 4.2: filtered setting); Sun et al. 2020 (re-evaluation of knowledge graph
completion, section 4: ties).
"""

from __future__ import annotations

from torch import Tensor


def filtered_ranks(scores: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return the rank of each target among the nodes that are no other right answer, float64 (B,), 1 the best.

    Nodes with the target's score count half, so that equal scores for all nodes give the rank of a guess.

    Args:
        scores: (B, N), higher is likelier.
        targets: int64 (B,).
        known: Whether a node is a right answer of the query, bool (B, N); the target itself may be one.
    """
    own = scores.gather(1, targets.unsqueeze(1))
    others = ~known
    others.scatter_(1, targets.unsqueeze(1), False)
    better = ((scores > own) & others).sum(1)
    equal = ((scores == own) & others).sum(1)
    return 1 + better.double() + equal.double() / 2


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Return the mean of 1 / rank, of ranks (B,)."""
    return float(ranks.double().reciprocal().mean())


def hits(ranks: Tensor, within: int) -> float:
    """Return the share of ranks (B,) that are at most `within`."""
    return float((ranks <= within).double().mean())
