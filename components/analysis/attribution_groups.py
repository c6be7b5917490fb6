"""Attributions of pairs of words, summed up by what kinds of words they join.

A word piece belongs to the word in which it begins; attributions of the pieces of a word are added. Tokens at the ends
of a text belong to no word. The mass of a group of pairs is

    ratio = mean over the group's pairs of |A_ij| / mean_{kl} |A_kl|,

so that every pair of texts counts as if its average pair of words had mass 1. Whether a ratio says anything is asked of
the same words with the labels of each text in random order.

Letters: S_a, S_b tokens, W_a, W_b words of two texts, R permutations.

Source: Moeller, Nikolaev and Pado 2023, "An Attribution Method for Siamese Encoders", section 5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from components.analysis.attribution import AttributionError


def word_spans(text: str, forms: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return where in a text its words stand, as (start, end) in characters; None where one is not there in order.

    Words follow one another, with nothing but white space between them; a treebank's word that the text spells
    otherwise (an expanded contraction) cannot be placed.
    """
    spans, place = [], 0
    for form in forms:
        while place < len(text) and text[place].isspace():
            place += 1
        if not text.startswith(form, place):
            return None
        spans.append((place, place + len(form)))
        place += len(form)
    return spans if not text[place:].strip() else None


def words_of_pieces(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the word of each piece, -1 for a token that stands for no characters.

    Args:
        offsets: Characters (start, end) of each piece; empty for the tokens at the ends of a text.
        spans: Characters of each word, in order, without overlap.

    Raises:
        AttributionError: A piece begins outside all words.
    """
    words = []
    for start, end in offsets:
        inside = [word for word, (first, last) in enumerate(spans) if first <= start < last] if start < end else [-1]
        if not inside:
            raise AttributionError(f"the piece at characters {start} to {end} begins in no word of the text.")
        words += inside
    return words


def sum_over_words(matrix: np.ndarray, words_a: Sequence[int], words_b: Sequence[int]) -> np.ndarray:
    """Add the attributions of pieces up to those of words, (S_a, S_b) to (W_a, W_b).

    Tokens of no word (-1) are left out; a word in which no piece begins (the second half of "gonna") gets zeros.

    Args:
        matrix: Attributions of pairs of tokens.
        words_a: Word of each row.
        words_b: Word of each column.
    """
    return _membership(words_a) @ np.asarray(matrix, dtype=np.float64) @ _membership(words_b).T


def _membership(words: Sequence[int]) -> np.ndarray:
    words = np.asarray(words)
    return (np.arange(words.max(initial=-1) + 1)[:, None] == words).astype(np.float64)


@dataclass(frozen=True)
class LabelledPair:
    """Attributions of the pairs of words of two texts.

    Attributes:
        mass: |A| over its mean, (W_a, W_b).
        labels_a: Label of each row.
        labels_b: Label of each column.
    """

    mass: np.ndarray
    labels_a: np.ndarray
    labels_b: np.ndarray


def labelled_pair(
    matrix: np.ndarray,
    words_a: Sequence[int],
    words_b: Sequence[int],
    labels_a: Sequence[str],
    labels_b: Sequence[str],
) -> LabelledPair:
    """Sum a matrix of tokens over words, keep the words in which pieces begin, and scale its mean size to 1.

    Args:
        matrix: Attributions of pairs of tokens, (S_a, S_b).
        words_a: Word of each row, -1 for none.
        words_b: Word of each column, -1 for none.
        labels_a: Label of each word of the first text.
        labels_b: Label of each word of the second text.

    Raises:
        AttributionError: There is no word, or no attribution at all.
    """
    size = np.abs(sum_over_words(matrix, words_a, words_b))
    held_a, held_b = (np.unique([word for word in words if word >= 0]) for words in (words_a, words_b))
    if not len(held_a) or not len(held_b):
        raise AttributionError("a text has no words; a matrix of words needs at least one row and one column.")
    size = size[np.ix_(held_a, held_b)]
    if not size.mean() > 0:
        raise AttributionError("all attributions of words are zero, so no pair has a share of them.")
    return LabelledPair(size / size.mean(), np.asarray(labels_a)[held_a], np.asarray(labels_b)[held_b])


def group_ratio(pairs: Sequence[LabelledPair], group: Collection[str]) -> float:
    """Return the mass of the average pair of words with both labels in a group, over that of the average pair of words.

    Every pair of words of all texts counts once.

    Raises:
        AttributionError: No pair of texts has such words on both sides.
    """
    total = cells = 0.0
    for pair in pairs:
        rows, columns = _in_group(pair, group)
        total += rows @ pair.mass @ columns
        cells += rows.sum() * columns.sum()
    if not cells:
        raise AttributionError(f"no pair of texts has words labelled {', '.join(sorted(group))} on both sides.")
    return float(total / cells)


def permuted_ratios(
    pairs: Sequence[LabelledPair], group: Collection[str], permutations: int, generator: np.random.Generator
) -> np.ndarray:
    """Return `group_ratio` after the labels of each text were put into random order, for each permutation, (R,).

    A text keeps its labels, so that every permutation has as many pairs of the group as there are.
    """
    totals, cells = np.zeros(permutations), 0.0
    for pair in pairs:
        rows, columns = _in_group(pair, group)
        drawn = (generator.permuted(np.tile(side, (permutations, 1)), axis=1) for side in (rows, columns))
        totals += np.einsum("ri,ij,rj->r", next(drawn), pair.mass, next(drawn), optimize=True)
        cells += rows.sum() * columns.sum()
    if not cells:
        raise AttributionError(f"no pair of texts has words labelled {', '.join(sorted(group))} on both sides.")
    return totals / cells


def mass_by_labels(pairs: Sequence[LabelledPair]) -> dict[tuple[str, str], tuple[float, int]]:
    """Return for every two labels, in alphabetical order, the mean mass of their pairs of words and how many there are.

    Which text a word stands in makes no difference.
    """
    first = np.concatenate([np.repeat(pair.labels_a, pair.mass.shape[1]) for pair in pairs])
    second = np.concatenate([np.tile(pair.labels_b, pair.mass.shape[0]) for pair in pairs])
    mass = np.concatenate([pair.mass.ravel() for pair in pairs])
    ordered = first <= second
    both = np.stack([np.where(ordered, first, second), np.where(ordered, second, first)])
    keys, places = np.unique(both, axis=1, return_inverse=True)
    places = places.reshape(-1)
    counts = np.bincount(places)
    means = np.bincount(places, weights=mass) / counts
    return {(str(a), str(b)): (float(m), int(n)) for (a, b), m, n in zip(keys.T, means, counts, strict=True)}


def _in_group(pair: LabelledPair, group: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.isin(labels, list(group)).astype(np.float64) for labels in (pair.labels_a, pair.labels_b))
