"""Embeddings of tokens from their neighbours, and how well the spaces of two vocabularies can be laid over each other.

    GloVe        minimise sum_ij f(X_ij) (w_i . v_j + b_i + c_j - ln X_ij)^2,   f(x) = min(1, (x / x_max)^(3/4))
    Procrustes   minimise ||A R - B|| over orthogonal R
    Hausdorff    h(A, B) = max_a min_b ||a - b||

Nothing says which token of one vocabulary belongs to which of another: they are matched by frequency rank, and from
there by iterating (match every point with its nearest, rotate, match again).

Letters: `V` tokens, `D` width of an embedding, `N` matched pairs. X counts how often j stands near i.

Sources: Pennington, Socher and Manning 2014 (GloVe); Schoenemann 1966 (Procrustes); Besl and McKay 1992 (iterated
nearest neighbours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from components.analysis.token_corpus import TokenCorpus
from components.errors import TesseraError


class AlignmentError(TesseraError):
    """Two spaces cannot be compared."""


def cooccurrences(corpus: TokenCorpus, window: int) -> Tensor:
    """Return X, float32 (V, V): pairs of tokens at distance d <= window inside a document, each counted 1 / d.

    X is symmetric: what stands before a token counts as what stands behind it.
    """
    size, documents = corpus.vocabulary_size, corpus.document_of
    counts = np.zeros(size * size)
    for distance in range(1, min(window, len(corpus.tokens) - 1) + 1):
        inside = documents[distance:] == documents[:-distance]
        pairs = corpus.tokens[:-distance][inside] * size + corpus.tokens[distance:][inside]
        counts += np.bincount(pairs, minlength=size * size) / distance
    table = torch.from_numpy(counts.reshape(size, size)).float()
    return table + table.T


def glove(
    counts: Tensor,
    dimension: int,
    generator: torch.Generator,
    *,
    steps: int = 300,
    learning_rate: float = 0.05,
    largest: float = 100.0,
) -> Tensor:
    """Learn embeddings from co-occurrences, all pairs in every step.

    Args:
        counts: X, (V, V); pairs that never occur have no weight.
        dimension: D.
        generator: Source of the starting values, on the CPU.
        steps: Updates of Adam.
        learning_rate: Its learning rate, falling to zero along a cosine.
        largest: x_max, from which on pairs weigh the same.

    Returns:
        w + v, (V, D), on the device of `counts`.
    """
    size = len(counts)
    start = (torch.rand(2, size, dimension, generator=generator) - 0.5) / dimension
    words, contexts = (nn.Parameter(part.to(counts.device)) for part in start)
    biases = nn.Parameter(torch.zeros(2, size, device=counts.device))
    weights = (counts / largest).clamp(max=1).pow(0.75)
    logs = counts.clamp_min(1e-12).log()
    optimiser = torch.optim.Adam([words, contexts, biases], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            error = torch.addmm(biases[1], words, contexts.T) + biases[0][:, None] - logs
            loss = (weights * error.square()).sum() / size
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return (words + contexts).detach()


def standardised(points: Tensor) -> Tensor:
    """Return points (V, D) around their mean, with a mean squared length of 1.

    Raises:
        AlignmentError: All points are the same.
    """
    centred = points.double() - points.double().mean(0)
    scale = centred.square().sum(1).mean().sqrt()
    if scale == 0:
        raise AlignmentError(f"all {len(points)} points are the same; there is nothing to align.")
    return centred / scale


def procrustes(source: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Return the orthogonal R that brings paired points (N, D) closest, and what is left.

    The residual is `||A R - B||^2 / (||A||^2 + ||B||^2)`: 0 between a space and its rotation; two spaces that have
    nothing in common are near 1 where points are few beside D, and below where a rotation can fit noise.

    Raises:
        AlignmentError: The shapes differ.
    """
    if source.shape != target.shape:
        raise AlignmentError(f"{tuple(source.shape)} and {tuple(target.shape)} points; expected pairs of one width.")
    left, _, right = torch.linalg.svd(source.T @ target)
    rotation = left @ right
    residual = (source @ rotation - target).square().sum() / (source.square().sum() + target.square().sum())
    return rotation, float(residual)


def iterated_nearest(source: Tensor, target: Tensor, rotation: Tensor, iterations: int = 30) -> Tensor:
    """Return a better rotation: match points that are each other's nearest, rotate, and again.

    Args:
        source: (V, D).
        target: (V', D).
        rotation: Where to start, (D, D).
        iterations: At most so many; it ends when the matches stay the same.
    """
    before = None
    for _ in range(iterations):
        distances = torch.cdist(source @ rotation, target)
        forward, backward = distances.argmin(1), distances.argmin(0)
        mutual = torch.nonzero(backward[forward] == torch.arange(len(source), device=source.device)).squeeze(1)
        matches = torch.stack([mutual, forward[mutual]])
        if before is not None and torch.equal(before, matches):
            break
        before = matches
        rotation, _ = procrustes(source[matches[0]], target[matches[1]])
    return rotation


def directed_hausdorff(source: Tensor, target: Tensor) -> float:
    """Return max_a min_b ||a - b|| of point sets (V, D) and (V', D)."""
    return float(torch.cdist(source, target).amin(1).max())


def hausdorff(first: Tensor, second: Tensor) -> float:
    """Return the larger of both directed distances."""
    return max(directed_hausdorff(first, second), directed_hausdorff(second, first))


@dataclass(frozen=True)
class Alignment:
    """How well one space of tokens lies on another; see `align`.

    Attributes:
        rank_residual: Procrustes residual of tokens matched by frequency rank.
        nearest_distance: Mean distance from a source point to the nearest target point, after iterated matching.
        mutual_share: Share of source points that then are the nearest of their nearest.
        directed: Directed Hausdorff distance from source to target, then.
        symmetric: Hausdorff distance, then.
    """

    rank_residual: float
    nearest_distance: float
    mutual_share: float
    directed: float
    symmetric: float


def align(source: Tensor, target: Tensor) -> Alignment:
    """Lay one space over another, both (V, D) with rows by descending frequency and standardised.

    Distances are in units of the root mean square length of a point.
    """
    count = min(len(source), len(target))
    source, target = standardised(source[:count]), standardised(target[:count])
    rotation, residual = procrustes(source, target)
    moved = source @ iterated_nearest(source, target, rotation)
    distances = torch.cdist(moved, target)
    forward, backward = distances.argmin(1), distances.argmin(0)
    mutual = (backward[forward] == torch.arange(count, device=source.device)).double().mean()
    return Alignment(
        residual,
        float(distances.amin(1).mean()),
        float(mutual),
        directed_hausdorff(moved, target),
        hausdorff(moved, target),
    )
