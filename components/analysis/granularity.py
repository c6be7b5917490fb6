"""What one token stands for: how the tokens of image cells agree with labels of the picture at several levels.

A cell's label is the label of most of its pixels. With tokens t and labels l over all cells,

    homogeneity   1 - H(l | t) / H(l)          a token has one label
    completeness  1 - H(t | l) / H(t)          a label has one token
    V-measure     their harmonic mean
    AMI           (I(t; l) - E I) / ((H(t) + H(l)) / 2 - E I)

E I is the mutual information expected of tokens and labels that are paired at random, so that levels with different
numbers of labels can be compared. Information is in nats.

Letters: `B` images, `P` cells of an image, `H W` pixels, `V` tokens, `L` labels, `R` resamples.

Sources: Rosenberg and Hirschberg 2007 (V-measure); Vinh, Epps and Bailey 2010 (AMI).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from components.errors import TesseraError


class GranularityError(TesseraError):
    """Tokens and labels do not belong to the same cells."""


@dataclass(frozen=True)
class Agreement:
    """How tokens and labels agree, see the module.

    Attributes:
        homogeneity, completeness, v_measure, ami: Each at most 1.
    """

    homogeneity: float
    completeness: float
    v_measure: float
    ami: float


def majority_labels(labels: np.ndarray, rows: int, count: int) -> np.ndarray:
    """Return the label of most pixels of every cell, the smallest of equally frequent ones.

    Args:
        labels: Label of each pixel, (B, H, W) with H and W multiples of `rows`.
        rows: Cells along a side.
        count: L; labels are 0 to L - 1.

    Returns:
        int64 (B, P), cells row by row.
    """
    images, height, width = labels.shape
    if height % rows or width % rows:
        raise GranularityError(f"{width} x {height} pixels are not cut into {rows} x {rows} cells; resize the masks.")
    cells = labels.reshape(images, rows, height // rows, rows, width // rows).transpose(0, 1, 3, 2, 4)
    cells = cells.reshape(images * rows * rows, -1).astype(np.int64)
    keys = cells + count * np.arange(len(cells))[:, None]
    votes = np.bincount(keys.ravel(), minlength=count * len(cells)).reshape(len(cells), count)
    return votes.argmax(1).reshape(images, rows * rows)


def contingencies(tokens: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count pairs of a token and a label in each image.

    Args:
        tokens: (B, P).
        labels: (B, P).

    Returns:
        int32 (B, V, L), over the tokens and labels that occur.

    Raises:
        GranularityError: The shapes differ.
    """
    if tokens.shape != labels.shape:
        raise GranularityError(f"tokens are {tokens.shape} and labels {labels.shape}; expected one label per token.")
    kinds, token = np.unique(tokens, return_inverse=True)
    levels, label = np.unique(labels, return_inverse=True)
    size = len(kinds) * len(levels)
    keys = (token * len(levels) + label).reshape(tokens.shape) + size * np.arange(len(tokens))[:, None]
    counts = np.bincount(keys.ravel(), minlength=size * len(tokens)).astype(np.int32)
    return counts.reshape(len(tokens), len(kinds), len(levels))


def agreement(table: np.ndarray) -> Agreement:
    """Measure a contingency table (V, L)."""
    information, of_tokens, of_labels = (float(value[0]) for value in _information(table[None].astype(np.float64)))
    homogeneity = information / of_labels if of_labels > 0 else 1.0
    completeness = information / of_tokens if of_tokens > 0 else 1.0
    both = homogeneity + completeness
    v_measure = 2 * homogeneity * completeness / both if both > 0 else 0.0
    adjusted = _adjusted(information, of_tokens, of_labels, expected_information(table))
    return Agreement(homogeneity, completeness, v_measure, float(adjusted))


def expected_information(table: np.ndarray) -> float:
    """Return E I in nats of a contingency table (V, L): its margins kept, pairs drawn at random.

        E I = sum_ij sum_n  n / N ln(N n / (a_i b_j)) P(n),   P hypergeometric with margins a_i, b_j of N

    All terms of all pairs stand in one array; there are at most L N of them.
    """
    table = np.asarray(table, dtype=np.int64)
    total = int(table.sum())
    rows, columns = table.sum(1), table.sum(0)
    a, b = (each.ravel() for each in np.meshgrid(rows[rows > 0], columns[columns > 0], indexing="ij"))
    first = np.maximum(1, a + b - total)
    terms = np.minimum(a, b) - first + 1
    pair = np.repeat(np.arange(len(a)), terms)
    n = np.arange(len(pair)) - np.repeat(terms.cumsum() - terms, terms) + first[pair]
    a, b = a[pair], b[pair]
    factorial = gammaln(np.arange(total + 1) + 1)
    chance = factorial[a] + factorial[b] + factorial[total - a] + factorial[total - b] - factorial[total]
    chance -= factorial[n] + factorial[a - n] + factorial[b - n] + factorial[total - a - b + n]
    return float((n / total * np.log(total * n / (a * b)) * np.exp(chance)).sum())


def resampled_ami(tables: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AMI of resamples of images, (R,).

    E I is computed once, for all images, and scaled to a resample by its leading term (V - 1) (L - 1) / (2 N) with the
    tokens and labels that are left there: the resamples are for the spread, in which the next term does not show.

    Args:
        tables: Contingency tables of the images, (B, V, L).
        weights: How often each image is in each resample, (R, B).
    """
    images, tokens, labels = tables.shape
    whole = tables.sum(0)
    expected = expected_information(whole)
    leading = _leading_term(whole[None])[0]
    sums = weights.astype(np.float64) @ tables.reshape(images, -1).astype(np.float64)
    sums = sums.reshape(len(weights), tokens, labels)
    information, of_tokens, of_labels = _information(sums)
    ratio = _leading_term(sums) / leading if leading > 0 else np.ones(len(weights))
    return _adjusted(information, of_tokens, of_labels, expected * ratio)


def permuted_within_images(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return labels (B, P) with those of each image in random order: what agreement a picture as a whole explains."""
    return generator.permuted(labels, axis=1)


def one_segment_share(tokens: np.ndarray, segments: np.ndarray) -> float:
    """Return the chance that two cells of an image with the same token lie in one segment.

    The mean over all pairs of different cells of one image that share a token; 1 where there is no such pair.

    Args:
        tokens: (B, P).
        segments: Segment of each cell, (B, P); compared inside an image only.
    """
    size = tokens.shape[1]
    upper = np.triu(np.ones((size, size), dtype=bool), 1)
    same = (tokens[:, :, None] == tokens[:, None, :]) & upper
    together = same & (segments[:, :, None] == segments[:, None, :])
    return float(together.sum() / same.sum()) if same.any() else 1.0


def _information(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mutual information, entropy of tokens and entropy of labels of tables (R, V, L), each (R,)."""
    total = tables.sum((1, 2))
    of_tokens, of_labels = (_entropy(tables.sum(axis), total) for axis in (2, 1))
    joint = _entropy(tables.reshape(len(tables), -1), total)
    return np.maximum(of_tokens + of_labels - joint, 0.0), of_tokens, of_labels


def _entropy(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    logs = np.log(counts, out=np.zeros_like(counts), where=counts > 0)
    return np.log(total) - (counts * logs).sum(1) / total


def _leading_term(tables: np.ndarray) -> np.ndarray:
    tokens, labels = ((tables.sum(axis) > 0).sum(1) for axis in (2, 1))
    return (tokens - 1) * (labels - 1) / (2 * tables.sum((1, 2)))


def _adjusted(information, of_tokens, of_labels, expected):
    room = (of_tokens + of_labels) / 2 - expected
    return np.where(np.abs(room) > 1e-12, (information - expected) / np.where(np.abs(room) > 1e-12, room, 1.0), 1.0)
