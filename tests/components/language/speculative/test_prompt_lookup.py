import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.speculative.prompt_lookup import PromptLookup, continuation


def brute_force(context: list[int], longest: int, count: int) -> list[int]:
    for size in range(min(longest, len(context) - 1), 0, -1):
        for start in range(len(context) - size - 1, -1, -1):
            if context[start : start + size] == context[-size:]:
                return context[start + size :][:count]
    return []


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 10))
def test_the_longest_suffix_is_found_at_its_last_earlier_place(context, longest, count):
    assert continuation(np.array(context), longest, count).tolist() == brute_force(context, longest, count)


def test_a_draft_is_a_chain_behind_the_last_token():
    tree, tokens = PromptLookup(longest=3, depth=4).draft([1, 2, 3, 4, 5, 6, 9, 1, 2, 3])
    assert tokens.tolist() == [3, 4, 5, 6, 9]
    assert tree.paths == ((), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0))


def test_where_nothing_is_found_nothing_is_drafted():
    tree, tokens = PromptLookup().draft([1, 2, 3])
    assert (tree.nodes, tokens.tolist()) == (1, [3])
