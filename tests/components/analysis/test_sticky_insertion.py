import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.analysis.sticky_insertion import MODES, InsertionError, templates

WORDS = st.lists(st.sampled_from(["a", "bb", "c", "a,"]), min_size=1, max_size=6)


def subsequence(shorter: list[str], longer: list[str]) -> bool:
    rest = iter(longer)
    return all(word in rest for word in shorter)


@settings(deadline=None)
@given(WORDS, st.integers(0, 99))
def test_every_mode_keeps_the_words_in_order_and_adds_exactly_the_copies(words, seed):
    counts = (0, 1, 4, 8)
    found = templates(" ".join(words), counts, np.random.default_rng(seed))
    assert [(each.mode, each.copies) for each in found] == [(mode, count) for mode in MODES for count in counts]
    for each in found:
        text = each.fill("X")
        assert Counter(text.split()) == Counter(words) + Counter({"X": each.copies})
        assert [word for word in text.split() if word != "X"] == words
        assert text == " ".join(text.split())
    by = {(each.mode, each.copies): each.fill("X").split() for each in found}
    assert by["prefix", 4] == ["X"] * 4 + words
    assert by["suffix", 4] == words + ["X"] * 4
    for few, more in itertools.pairwise(counts):
        assert subsequence(by["random", few], by["random", more])


def test_random_places_are_uniform_over_the_boundaries():
    generator = np.random.default_rng(0)
    seen = Counter(templates("a b", (1,), generator)[2].fill("X") for _ in range(3000))
    assert set(seen) == {"X a b", "a X b", "a b X"}
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in seen.values())


def test_empty_sentences_and_counts_that_do_not_increase_are_refused():
    with pytest.raises(InsertionError, match="without words"):
        templates("  ", (1,), np.random.default_rng(0))
    for counts in ((), (4, 1), (1, 1), (-1,)):
        with pytest.raises(InsertionError, match="expected them to increase"):
            templates("a", counts, np.random.default_rng(0))
