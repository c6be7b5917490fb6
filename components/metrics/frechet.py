"""Frechet distance of features of two image sets.

Letters: `N` items, `D` feature width.

    d^2 = ||mu_1 - mu_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)),      S_i = covariance + ridge * I

All in float64. The value is biased upwards by small N, so sets that are compared need the same count. It is an FID
only with the features FID is defined on; here the network that gave the features is part of the metric's name.

Source: Heusel et al. 2017, equation 6; Dowson and Landau 1982.
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError

RIDGE = 1e-6


class FrechetError(TesseraError):
    """Feature sets that cannot be compared."""


def frechet_distance(features: np.ndarray, references: np.ndarray, ridge: float = RIDGE) -> float:
    """Return the squared Frechet distance of two feature sets.

    Args:
        features: (N, D).
        references: (M, D).
        ridge: Added to the diagonal of both covariances.

    Raises:
        FrechetError: Widths differ, or a set has fewer than two items.
    """
    first, second = _checked(features), _checked(references)
    if first.shape[1] != second.shape[1]:
        raise FrechetError(f"features are {first.shape[1]} wide, references {second.shape[1]}; expected one network.")
    return _distance(*_moments(first, ridge), *_moments(second, ridge))


def leave_group_out(
    features: np.ndarray, references: np.ndarray, groups: np.ndarray, ridge: float = RIDGE
) -> tuple[float, np.ndarray]:
    """Return the distance of two paired sets, and the distance without each group of items in turn.

    Both sets hold the same items in the same order (originals and their reconstructions), so a group is left out of
    both: what remains is the sampling unit of a jackknife over groups.

    Args:
        features: (N, D).
        references: (N, D), row i belongs to row i of `features`.
        groups: Integers (N,) in [0, G), every group present.
        ridge: Added to the diagonal of both covariances.

    Returns:
        The distance, and the G distances without one group.
    """
    first, second = _checked(features), _checked(references)
    if first.shape != second.shape or len(groups) != len(first):
        raise FrechetError(
            f"features {first.shape}, references {second.shape} and groups {np.shape(groups)} must pair row by row."
        )
    value = _distance(*_moments(first, ridge), *_moments(second, ridge))
    without = []
    for group in range(int(groups.max()) + 1):
        kept = groups != group
        without.append(_distance(*_moments(first[kept], ridge), *_moments(second[kept], ridge)))
    return value, np.array(without)


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[0] < 2:
        raise FrechetError(f"features have shape {features.shape}; expected (N, D) with at least two items.")
    return features


def _moments(features: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    covariance = np.cov(features, rowvar=False).reshape(features.shape[1], features.shape[1])
    return features.mean(0), covariance + ridge * np.eye(features.shape[1])


def _distance(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    # tr (S1 S2)^(1/2) = tr (R S2 R)^(1/2) with R = S1^(1/2): a symmetric matrix, whose root needs no complex numbers.
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_2 @ root).clip(min=0)).sum()
    return float(np.square(mean_1 - mean_2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * cross)
