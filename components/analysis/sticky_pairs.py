"""Pairs of sentences for measuring stickiness, and the similarity that sticky tokens pull toward.

    u = mean_{t,t'} cos(e_t, e_t') = || mean_t e_t ||^2        for unit vectors e_t of single tokens, diagonal included

Pairs lie evenly over the range of similarity, so that a token is tried on unlike and on like sentences. Those below u
are edited: a move toward u is then an increase.

Letters: S sentences, N vectors, D width, M pairs.

Source: Chen et al. 2025, "Sticking to the Mean: Detecting Sticky Tokens in Text Embedding Models", stage 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.errors import TesseraError

DISTINCT_PAIRS = 1_000
LOWER_SHARE = 0.8


class PairsError(TesseraError):
    """Sentences do not give as many pairs as are needed."""


def mean_similarity(vectors: Tensor) -> float:
    """Return the mean cosine of all ordered pairs of vectors (N, D), each with itself included; no N x N matrix."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
    return float(unit.mean(0).square().sum())


@dataclass(frozen=True)
class Pairs:
    """Chosen pairs, in increasing order of similarity.

    Attributes:
        first: Row of the sentence that stays, int64 (M,).
        second: Row of the sentence that is edited, int64 (M,).
        similarity: Cosine before any edit, float64 (M,).
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def take(self, rows: np.ndarray) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.first[rows], self.second[rows], self.similarity[rows])

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class PairSets:
    """The pairs of a sample.

    Attributes:
        scoring: Pairs below u that tokens are scored on.
        verification: Others below u, on which what the score found is checked.
        above: Pairs above u, where a sticky token has to lower similarity.
    """

    scoring: Pairs
    verification: Pairs
    above: Pairs


def nearest_unused(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return, for each value of a grid in turn, the place of the nearest value that no earlier one took.

    Args:
        values: Increasing, (V,).
        grid: Any order, at most V of them.

    Raises:
        PairsError: The grid has more values than there are.
    """
    if len(grid) > len(values):
        raise PairsError(f"{len(grid)} pairs are wanted, there are {len(values)}; give more sentences.")
    # Free neighbours of every place by path compression: taken places point past themselves.
    # In `left` place p stands at p + 1, so that 0 means "none".
    left, right = list(range(len(values) + 1)), list(range(len(values) + 1))

    def follow(links: list[int], place: int) -> int:
        root = place
        while links[root] != root:
            root = links[root]
        while links[place] != root:
            links[place], place = root, links[place]
        return root

    taken = []
    for target, start in zip(grid, np.searchsorted(values, grid), strict=True):
        above, below = follow(right, int(start)), follow(left, int(start)) - 1
        nearer_below = above == len(values) or (below >= 0 and target - values[below] <= values[above] - target)
        place = below if nearer_below else above
        right[place], left[place + 1] = place + 1, place
        taken.append(place)
    return np.asarray(taken, dtype=np.int64)


def evenly_spaced_pairs(vectors: Tensor, count: int = DISTINCT_PAIRS) -> Pairs:
    """Choose distinct pairs of sentences whose similarities lie evenly between the smallest and the largest.

    Args:
        vectors: Unit vectors of sentences, (S, D).
        count: Pairs; all of them where there are fewer.
    """
    rows, columns = np.triu_indices(len(vectors), 1)
    similarity = (vectors.double() @ vectors.double().t()).cpu().numpy()[rows, columns]
    order = np.argsort(similarity, kind="stable")
    ordered = similarity[order]
    grid = np.linspace(ordered[0], ordered[-1], min(count, len(ordered)))
    chosen = order[np.sort(nearest_unused(ordered, grid))]
    return Pairs(rows[chosen], columns[chosen], similarity[chosen])


def pair_sets(vectors: Tensor, centre: float, *, scoring: int, verification: int, above: int = 0) -> PairSets:
    """Choose the pairs of a sample, disjoint and each set on an even grid.

    Scoring and verification pairs come from the lowest 80% of [smallest similarity, u], those above u from the whole
    of (u, largest similarity].

    Args:
        vectors: Unit vectors of sentences, (S, D).
        centre: u.
        scoring: Number of scoring pairs.
        verification: Number of verification pairs.
        above: Number of pairs above u.

    Raises:
        PairsError: There are too few pairs on a side of u.
    """
    pairs = evenly_spaced_pairs(vectors)
    lowest = pairs.similarity[0]
    low = pairs.take(np.flatnonzero(pairs.similarity < lowest + LOWER_SHARE * (centre - lowest)))
    high = pairs.take(np.flatnonzero(pairs.similarity > centre))
    for name, side, wanted in (("below", low, scoring + verification), ("above", high, above)):
        if len(side) < wanted:
            raise PairsError(
                f"{wanted} pairs {name} u = {centre:.3f} are wanted, {len(pairs)} evenly spaced pairs of "
                f"{len(vectors)} sentences have {len(side)}; give more sentences."
            )
    first = _on_grid(low, scoring)
    left = low.take(np.setdiff1d(np.arange(len(low)), first))
    return PairSets(low.take(first), left.take(_on_grid(left, verification)), high.take(_on_grid(high, above)))


def _on_grid(pairs: Pairs, count: int) -> np.ndarray:
    if not count:
        return np.empty(0, dtype=np.int64)
    grid = np.linspace(pairs.similarity[0], pairs.similarity[-1], count)
    return np.sort(nearest_unused(pairs.similarity, grid))
