"""Diverse subsets of tokens, chosen greedily by cosine distance.

    d(i, j) = 1 - cos(x_i, x_j)
    max-min (k-center):   S <- S + argmax_{i not in S} min_{j in S} d(i, j)
    max-sum:              S <- S + argmax_{i not in S} sum_{j in S} d(i, j)

A running minimum (or sum) over the chosen makes K tokens of N cost K N distances, and the order a prefix order: the
choice of K tokens begins the choice of K + 1. Max-min covers: no token is farther from the chosen, in chord length
sqrt(2 d) on the unit sphere, than twice what the best K tokens reach. (The cosine distance itself is half a squared
chord and breaks the triangle inequality, so that in d the factor is 4.)

Letters: `B` pictures, `N` tokens of a picture, `K` tokens kept, `D` width.

Sources: Li et al. 2025 (ToDRE), section 3.2 (max-min in its first, max-sum in its later version); Gonzalez 1985
(the guarantee of farthest-first traversal).
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError

Objective = Literal["maxmin", "maxsum"]

# Distances are multiples of this. Rounding errors of single precision, which depend on the size of a batch, lie below:
# equal distances tie exactly. Sums of billions of multiples are exact in double precision.
_STEP = 2.0**-20


class SelectionError(TesseraError):
    """Tokens cannot be selected as asked."""


def unit_features(features: Tensor, remove_mean: bool = False) -> Tensor:
    """Return float64 unit vectors (B, N, D) of features (B, N, D), less their mean over a picture's tokens if asked."""
    features = features.double()
    if remove_mean:
        features = features - features.mean(1, keepdim=True)
    return F.normalize(features, dim=-1)


def distances(units: Tensor, other: Tensor) -> Tensor:
    """Return cosine distances (B, N) of unit vectors (B, N, D) to one unit vector of each picture, (B, D)."""
    cosines = (units @ other[..., None]).squeeze(-1)
    return ((1 - cosines) / _STEP).round().clamp_min(0) * _STEP


def greedy_order(
    features: Tensor, count: int, first: Tensor, *, objective: Objective = "maxmin", remove_mean: bool = False
) -> Tensor:
    """Choose diverse tokens one after the other; of equally good ones that with the smallest index.

    Args:
        features: (B, N, D).
        count: K.
        first: The token to start from, int64 (B,).
        objective: What the next token is far from: the nearest of the chosen, or all of them together.
        remove_mean: Subtract the mean of a picture's tokens first, so that a common direction does not hide what
            differs.

    Returns:
        Indices in the order of choice, int64 (B, K).

    Raises:
        SelectionError: There are fewer tokens, or the objective is unknown.
    """
    check_count(features, count)
    if objective not in ("maxmin", "maxsum"):
        raise SelectionError(f"objective is {objective!r}; expected 'maxmin' or 'maxsum'.")
    units = unit_features(features, remove_mean)
    running = units.new_full(units.shape[:2], math.inf if objective == "maxmin" else 0.0)
    order = first.new_empty(len(first), count)
    order[:, 0] = first
    for step in range(1, count):
        new = distances(units, _at(units, order[:, step - 1]))
        running = running.minimum(new) if objective == "maxmin" else running + new
        # Distances are never negative, so that what is chosen already comes last.
        order[:, step] = running.scatter(1, order[:, :step], -1.0).argmax(1)
    return order


def covering_radius(features: Tensor, indices: Tensor, remove_mean: bool = False) -> Tensor:
    """Return max_i min_{j in S} d(i, j) of every picture, float64 (B,).

    Args:
        features: (B, N, D).
        indices: S, int64 (B, K).
        remove_mean: As in `greedy_order`.
    """
    units = unit_features(features, remove_mean)
    nearest = units.new_full(units.shape[:2], math.inf)
    for chosen in indices.unbind(1):
        nearest = nearest.minimum(distances(units, _at(units, chosen)))
    return nearest.amax(1)


def mean_pairwise_distance(features: Tensor, indices: Tensor, remove_mean: bool = False) -> Tensor:
    """Return the mean of d over all pairs of S, float64 (B,); zero for a single token.

        sum_{i != j} cos(x_i, x_j) = |sum_i u_i|^2 - K    for unit vectors u

    Args:
        features: (B, N, D).
        indices: S, int64 (B, K).
        remove_mean: As in `greedy_order`.
    """
    units = unit_features(features, remove_mean)
    chosen = units.gather(1, indices[..., None].expand(-1, -1, units.shape[-1]))
    count = indices.shape[1]
    if count == 1:
        return units.new_zeros(len(units))
    cosines = chosen.sum(1).square().sum(-1) - chosen.square().sum((1, 2))
    return 1 - cosines / (count * (count - 1))


def check_count(features: Tensor, count: int) -> None:
    """Check that `count` tokens of features (B, N, D) can be kept.

    Raises:
        SelectionError: They cannot.
    """
    if not 1 <= count <= features.shape[1]:
        raise SelectionError(
            f"{count} of {features.shape[1]} tokens cannot be kept; expected 1 to {features.shape[1]}."
        )


def _at(units: Tensor, index: Tensor) -> Tensor:
    return units.gather(1, index[:, None, None].expand(-1, 1, units.shape[-1])).squeeze(1)
