"""Word and character errors against the edit distance by brute force."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics.word_error import Errors, WordErrorError, character_errors, error_rate, word_errors


def distance(one, other):
    @functools.cache
    def between(i, j):
        if not i or not j:
            return i + j
        step = between(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(step, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(one), len(other))


SENTENCES = st.lists(st.sampled_from(["one", "two", "to", "ten"]), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(SENTENCES | st.just([]), SENTENCES), min_size=1, max_size=4))
def test_errors_are_the_edit_distance_and_the_rate_is_a_ratio_of_sums(pairs):
    heard, said = [" ".join(one) for one, _ in pairs], [" ".join(other) for _, other in pairs]
    words = [Errors(distance(tuple(one), tuple(other)), len(other)) for one, other in pairs]
    assert word_errors(heard, said) == words
    assert character_errors(heard, said) == [
        Errors(distance(one, other), len(other)) for one, other in zip(heard, said, strict=True)
    ]
    assert error_rate(words) == sum(each.edits for each in words) / sum(len(other) for _, other in pairs)


def test_references_without_words_and_other_numbers_are_refused():
    with pytest.raises(WordErrorError, match="reference 1 is empty"):
        word_errors(["a", "b"], ["a", " "])
    with pytest.raises(WordErrorError, match="give one each"):
        character_errors(["a"], [])
    with pytest.raises(WordErrorError, match="at least one"):
        error_rate([])
