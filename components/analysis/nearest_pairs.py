"""Pairs of texts that are one another's nearest neighbours.

    (i, j) with  j = argmax_{k != i} cos(v_i, v_k),  i = argmax_{k != j} cos(v_j, v_k),  i and j not excluded

Letters: N texts, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError

_ROWS = 2048


class NearestPairsError(TesseraError):
    """There are no texts to pair."""


@torch.no_grad()
def mutual_nearest(vectors: Tensor, excluded: Callable[[int, int], bool] | None = None) -> list[tuple[int, int]]:
    """Return every pair (i, j), i < j, of texts nearest to one another, by i; each text is in one pair at most.

    Args:
        vectors: Vectors of texts, (N, E), of any length.
        excluded: Tells of two nearest neighbours whether they are no pair (the same text twice).

    Raises:
        NearestPairsError: There are fewer than two texts.
    """
    if len(vectors) < 2:
        raise NearestPairsError(f"{len(vectors)} texts; nearest neighbours need at least two.")
    unit = F.normalize(vectors, dim=-1)
    nearest = []
    for first in range(0, len(unit), _ROWS):
        rows = unit[first : first + _ROWS]
        similarity = rows @ unit.T
        own = torch.arange(first, first + len(rows), device=unit.device)
        similarity[torch.arange(len(rows), device=unit.device), own] = -torch.inf
        nearest.append(similarity.argmax(1))
    partner = torch.cat(nearest).tolist()
    return [
        (i, j)
        for i, j in enumerate(partner)
        if i < j and partner[j] == i and not (excluded is not None and excluded(i, j))
    ]
