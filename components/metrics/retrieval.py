"""How well vectors find and group documents: rank of the relevant one, and agreement of clusters with classes.

    nDCG@k = 1 / log2(1 + rank) where rank <= k, else 0          one relevant document, gain 1
    reciprocal rank = 1 / rank

Rank counts the documents that score at least as high as the relevant one: ties count against it, so that equal scores
for everything find nothing.

Letters: Q queries, N documents.

Source: Järvelin and Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques"; Rosenberg and Hirschberg 2007,
"V-Measure: A Conditional Entropy-Based External Cluster Evaluation Measure".
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError


class RetrievalError(TesseraError):
    """Scores or classes that no measure can be taken from."""


def ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the rank of each query's relevant document, 1 the best, int64 (Q,).

    Args:
        scores: (Q, N), larger for better.
        relevant: Number of the relevant document of each query, (Q,).

    Raises:
        RetrievalError: The shapes do not fit, or a relevant document does not exist.
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant)
    if scores.ndim != 2 or relevant.shape != scores.shape[:1]:
        raise RetrievalError(
            f"scores {scores.shape} and relevant documents {relevant.shape}; expected (Q, N) and (Q,)."
        )
    if len(relevant) and (relevant.min() < 0 or relevant.max() >= scores.shape[1]):
        raise RetrievalError(f"relevant documents are numbers from 0 to {scores.shape[1] - 1}.")
    own = np.take_along_axis(scores, relevant[:, None], 1)
    return (scores >= own).sum(1)


def ndcg(scores: np.ndarray, relevant: np.ndarray, depth: int = 10) -> np.ndarray:
    """Return nDCG at a depth of each query with one relevant document, 0 to 1, (Q,).

    Args:
        scores: (Q, N).
        relevant: (Q,).
        depth: Documents that are looked at.
    """
    rank = ranks(scores, relevant)
    return np.where(rank <= depth, 1 / np.log2(1 + rank), 0.0)


def reciprocal_rank(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return 1 / rank of each query's relevant document, above 0 to 1, (Q,); its mean is the MRR."""
    return 1 / ranks(scores, relevant)


def v_measure(classes: np.ndarray, clusters: np.ndarray) -> float:
    """Return the harmonic mean of homogeneity and completeness of a clustering, 0 to 1.

    Args:
        classes: True class of each document, (N,).
        clusters: Cluster of each document, (N,).
    """
    from sklearn.metrics import v_measure_score

    if len(classes) != len(clusters) or not len(classes):
        raise RetrievalError(f"{len(classes)} classes and {len(clusters)} clusters; expected equally many, and some.")
    return float(v_measure_score(classes, clusters))
