"""How well generated samples lie where real ones are, and whether they cover them.

    precision = share of generated features within the neighbourhood of a real one
    recall    = share of real features within the neighbourhood of a generated one

The neighbourhood of a set is the union of balls around its points, each reaching to the k-th nearest other point of the
set. Precision falls when samples look like nothing real, recall when something real is never drawn; a Frechet distance
mixes the two.

Letters: `N M` items, `D` feature width.

Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", section 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from components.errors import TesseraError

_ROWS = 1024


class GenerationMetricError(TesseraError):
    """Feature sets that cannot be compared."""


def precision(generated: np.ndarray, real: np.ndarray, neighbours: int = 3) -> float:
    """Return the share of generated features (N, D) within the neighbourhood of real ones (M, D)."""
    return _share_within(generated, real, neighbours)


def recall(generated: np.ndarray, real: np.ndarray, neighbours: int = 3) -> float:
    """Return the share of real features (M, D) within the neighbourhood of generated ones (N, D)."""
    return _share_within(real, generated, neighbours)


def _share_within(points: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    first, second = (torch.as_tensor(np.asarray(each, dtype=np.float64)) for each in (points, others))
    if first.dim() != 2 or second.dim() != 2 or first.shape[1] != second.shape[1] or not len(first):
        raise GenerationMetricError(
            f"features have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected (N, D) and (M, D)."
        )
    if not 1 <= neighbours < len(second):
        raise GenerationMetricError(
            f"neighbours is {neighbours} of {len(second)} points; expected at least 1 and fewer than there are points."
        )
    # The nearest point of a set to one of its own is that point, so the k-th other one is the k+1-th.
    radii = torch.cat([_squared(part, second).kthvalue(neighbours + 1, dim=1).values for part in second.split(_ROWS)])
    within = [(_squared(part, second) <= radii).any(1) for part in first.split(_ROWS)]
    return float(torch.cat(within).double().mean())


def _squared(rows: Tensor, columns: Tensor) -> Tensor:
    products = rows @ columns.T
    return (rows.square().sum(1, keepdim=True) + columns.square().sum(1) - 2 * products).clamp(min=0)
