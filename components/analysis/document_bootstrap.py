"""How much a statistic of a corpus depends on which documents happen to be in it: the bootstrap over documents.

Letters: `R` resamples, `D` documents, `V` types.

Source: Efron 1979; documents, not tokens, are the independent units.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from components.analysis.token_corpus import Grams

_BLOCK = 50


def drawn_documents(documents: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Return resamples: as many documents as there are, drawn with replacement, in the order of drawing, (R, D)."""
    return generator.integers(documents, size=(resamples, documents))


def document_weights(drawn: np.ndarray, documents: int) -> np.ndarray:
    """Return how often each document is in each resample, int64 (R, D)."""
    keys = drawn + documents * np.arange(len(drawn))[:, None]
    return np.bincount(keys.ravel(), minlength=documents * len(drawn)).reshape(len(drawn), documents)


def resampled_counts(grams: Grams, drawn: np.ndarray) -> np.ndarray:
    """Return the counts of the types in each resample, float64 (R, V).

    One row per resample: meant for vocabularies of thousands of types, not for n-grams.
    """
    documents = drawn.shape[1]
    table = np.zeros((documents, grams.count))
    np.add.at(table, (grams.documents, grams.types), 1.0)
    blocks = [drawn[first : first + _BLOCK] for first in range(0, len(drawn), _BLOCK)]
    return np.concatenate([document_weights(block, documents) @ table for block in blocks])


def bootstrap_variance(statistic: Callable[[np.ndarray], float], drawn: np.ndarray) -> float:
    """Return the variance over resamples of a statistic of documents in reading order.

    Args:
        statistic: From documents (D,), in order and with repetitions, to a number.
        drawn: Resamples, (R, D).
    """
    return float(np.var([statistic(order) for order in drawn], ddof=1))
