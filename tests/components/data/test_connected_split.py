"""A split of pairs keeps texts apart, against a search by hand over the graph of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.connected_split import ConnectedSplitError, connected_groups, held_out

TEXTS = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from("abcdefghijkl")), min_size=2, max_size=20)


def by_hand(pairs: list[tuple[str, str]]) -> list[set[int]]:
    """Merge pairs that share a text until nothing changes."""
    groups = [({number}, set(pair)) for number, pair in enumerate(pairs)]
    merged = True
    while merged:
        merged = False
        for one in range(len(groups)):
            for other in range(one + 1, len(groups)):
                if groups[one][1] & groups[other][1]:
                    groups[one] = tuple(a | b for a, b in zip(groups[one], groups.pop(other), strict=True))
                    merged = True
                    break
            if merged:
                break
    return [numbers for numbers, _ in groups]


@given(TEXTS)
def test_groups_are_those_found_by_merging_pairs_that_share_a_text(pairs):
    groups = connected_groups(*zip(*pairs, strict=True))
    found = {frozenset(np.flatnonzero(groups == group)) for group in set(groups.tolist())}
    assert found == {frozenset(group) for group in by_hand(pairs)}


def test_texts_that_differ_by_case_or_outer_spaces_are_one():
    assert len(set(connected_groups(["A cat.", "b"], [" x", "a CAT. "]).tolist())) == 1


@given(TEXTS, st.integers(0, 5))
def test_no_text_is_on_both_sides_and_the_size_is_exact(pairs, seed):
    first, second = zip(*pairs, strict=True)
    groups = connected_groups(first, second)
    try:
        test = held_out(groups, 1 + len(pairs) // 3, seed)
    except ConnectedSplitError:
        return
    assert test.sum() == 1 + len(pairs) // 3
    sides = (np.flatnonzero(test == side) for side in (False, True))
    train_texts, test_texts = ({text for number in numbers for text in pairs[number]} for numbers in sides)
    assert not train_texts & test_texts


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(ConnectedSplitError, match="leave 1 of 1"):
        held_out(np.zeros(4, dtype=np.int64), 1)
    with pytest.raises(ConnectedSplitError, match="4 of 4"):
        held_out(np.arange(4), 4)
