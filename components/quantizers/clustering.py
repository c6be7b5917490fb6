"""k-means in squared distance, for the start of a codebook and for codes made after training.

Letters: `N` vectors, `D` width of a vector, `K` centres.

Sources: Lloyd 1982 (iterations); Arthur and Vassilvitskii 2007 (k-means++ seeding).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from components.quantizers.nearest import nearest_codes
from components.quantizers.precision import exact
from components.quantizers.quantized import QuantizerError

Seeding = Literal["random", "plus_plus"]


@torch.no_grad()
def kmeans(
    vectors: Tensor, count: int, generator: torch.Generator, *, iterations: int, seeding: Seeding = "random"
) -> Tensor:
    """Cluster vectors by Lloyd's iterations, until nothing changes or `iterations` are done.

    A centre that no vector chooses moves onto one of the vectors farthest from their own centres, so the sum of
    squared distances never rises and every centre is in use as long as there are distinct vectors for it.

    Args:
        vectors: (N, D).
        count: K. With fewer vectors than centres, vectors are repeated with a little noise, so that no two centres
            coincide.
        generator: Source of the starting centres, on any device.
        iterations: At most so many iterations.
        seeding: "random" starts from distinct random vectors; "plus_plus" draws each next one with a probability that
            grows with its squared distance to those drawn before: better, and as slow as one more iteration.

    Returns:
        Centres (K, D), float32 for half-precision vectors.
    """
    if seeding not in get_args(Seeding):
        expected = ", ".join(get_args(Seeding))
        raise QuantizerError(f"kmeans seeding {seeding!r} does not exist; expected one of {expected}.")
    vectors = exact(vectors)
    if not vectors.shape[0]:
        raise QuantizerError(f"kmeans was given no vectors ({list(vectors.shape)}) for {count} centres.")
    if seeding == "plus_plus" and vectors.shape[0] > count:
        centres = _plus_plus(vectors, count, generator)
    else:
        centres = _distinct(vectors, count, generator)
    before = None
    for _ in range(iterations):
        assigned = nearest_codes(vectors, centres)
        if before is not None and torch.equal(assigned, before):
            break
        before = assigned
        centres = _centroids(vectors, assigned, centres)
    return centres


def _centroids(vectors: Tensor, assigned: Tensor, centres: Tensor) -> Tensor:
    sums = torch.zeros_like(centres).index_add_(0, assigned, vectors)
    counts = torch.zeros_like(centres[:, 0]).index_add_(0, assigned, torch.ones_like(vectors[:, 0])).unsqueeze(1)
    empty = (counts.squeeze(1) == 0).nonzero().squeeze(1)
    means = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    if len(empty):
        distances = (vectors - means[assigned]).square().sum(1)
        farthest = distances.topk(min(len(empty), len(vectors))).indices
        means[empty[: len(farthest)]] = vectors[farthest]
    return means


def _distinct(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    available = vectors.shape[0]
    order = torch.randperm(available, generator=generator, device=generator.device)
    picks = order.repeat(-(-count // available))[:count].to(vectors.device)
    noise = torch.randn(count, vectors.shape[1], generator=generator, device=generator.device).to(vectors)
    repeated = (torch.arange(count, device=vectors.device) >= available).unsqueeze(1)
    scale = 0.05 * vectors.square().mean().sqrt()
    return torch.where(repeated, vectors[picks] + scale * noise, vectors[picks])


def _plus_plus(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    draws = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    centres = vectors.new_empty(count, vectors.shape[1])
    nearest = torch.full_like(vectors[:, 0], torch.inf)
    weights = torch.ones(len(vectors), dtype=torch.float64)
    for place in range(count):
        # On the CPU: a GPU has no deterministic running sum.
        mass = weights.cumsum(0)
        pick = torch.searchsorted(mass, draws[place] * mass[-1], right=True).clamp_(max=len(vectors) - 1)
        centres[place] = vectors[int(pick)]
        nearest = torch.minimum(nearest, (vectors - centres[place]).square().sum(1))
        weights = nearest.double().cpu()
    return centres
