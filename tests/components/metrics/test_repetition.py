import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.errors import TesseraError
from components.metrics.repetition import distinct_ngrams


@given(st.lists(st.lists(st.integers(0, 2), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(1, 4))
def test_distinct_ngrams_are_those_a_set_counts(texts, length):
    expected = [len({tuple(text[i : i + length]) for i in range(10 - length)}) / (10 - length) for text in texts]
    assert distinct_ngrams(torch.tensor(texts), length).tolist() == pytest.approx(expected)


def test_a_text_shorter_than_the_ngram_is_refused():
    with pytest.raises(TesseraError, match="no 4-gram"):
        distinct_ngrams(torch.zeros(1, 3, dtype=torch.int64))
