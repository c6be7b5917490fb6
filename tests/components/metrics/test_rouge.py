"""ROUGE-L against the textbook recursion."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import TesseraError
from components.metrics.rouge import common_subsequence, rouge_l

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def recursion(one: list[int], other: list[int]) -> int:
    @functools.cache
    def longest(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if one[i - 1] == other[j - 1]:
            return longest(i - 1, j - 1) + 1
        return max(longest(i - 1, j), longest(i, j - 1))

    return longest(len(one), len(other))


@given(TOKENS, TOKENS)
@settings(max_examples=100, deadline=None)
def test_the_longest_common_subsequence_is_that_of_the_recursion(one, other):
    assert int(common_subsequence(torch.tensor([one]), torch.tensor([other]))) == recursion(one, other)


def test_pairs_of_a_batch_do_not_touch_each_other():
    candidates, references = torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([[1, 2, 3, 4], [4, 3, 0, 0]])
    assert rouge_l(candidates, references).tolist() == pytest.approx([6 / 7, 2 / 7])


def test_unequal_numbers_of_texts_are_refused():
    with pytest.raises(TesseraError, match="as many of both"):
        rouge_l(torch.zeros(2, 3), torch.zeros(3, 3))
