"""Overlap of words by the definition of the index of Jaccard."""

from __future__ import annotations

import pytest

from components.metrics.word_overlap import jaccard, words


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("A cat sat.", "the CAT sat!", 2 / 4),
        ("same words", "words same", 1.0),
        ("one", "two", 0.0),
        ("...", "", 0.0),
        ("don't", "don t", 1.0),
    ],
)
def test_it_is_the_share_of_words_in_common(first, second, expected):
    assert jaccard(first, second) == jaccard(second, first) == pytest.approx(expected)


def test_words_are_counted_once_and_without_case():
    assert words("Red red RED apple") == {"red", "apple"}
