import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text.continuations import ReencodedContinuations, continuations_of
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import Validity


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.text("ab", min_size=2, max_size=4), max_size=5, unique=True), st.text("ab", max_size=8))
def test_maximum_prefix_encoding_is_re_encoded_from_what_its_longest_token_reaches(extra, text):
    tokenizer = MaxPrefixTokenizer(["a", "b", *extra])
    rows = continuations_of(tokenizer)
    assert isinstance(rows, ReencodedContinuations)
    tokens = tokenizer.encode(text)
    row = rows.after(tokens)
    assert (row == ReencodedContinuations(tokenizer, memory=tuple).after(tokens)).all()
    validity = Validity(tokenizer)
    assert (row == validity.continuations(validity.state(tokens))).all()


def test_pairs_do_not_decide_for_maximum_prefix_encoding():
    tokenizer = MaxPrefixTokenizer(["a", "b", "aba"])
    rows = continuations_of(tokenizer)
    assert rows.after([1])[0]
    assert not rows.after([0, 1])[0]
    assert np.array_equal(rows.after([]), [True, True, True])
