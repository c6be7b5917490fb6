import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import chain_texts, english
from tokenizers import Tokenizer
from tokenizers.models import BPE

from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES
from components.tokenizers.text.continuations import ReencodedContinuations, continuations_of
from components.tokenizers.text.merge_continuations import MergeContinuations
from components.tokenizers.text.neighbours import NotDecidedByNeighbours
from components.tokenizers.text.validity import is_valid


def any_merges(seed: int) -> bpe.BytePairTokenizer:
    """Merges in any order: of no use, made twice, made possible by later ones; no training gives such ranks."""
    draw = random.Random(seed)
    tokens, merges = list("ab" if draw.random() < 0.5 else "abc"), []
    for _ in range(draw.randint(1, 14)):
        left, right = draw.choice(tokens), draw.choice(tokens)
        if (left, right) not in merges and len(left + right) <= 7:
            merges.append((left, right))
            tokens += [left + right] * (left + right not in tokens)
    draw.shuffle(merges)
    return bpe.BytePairTokenizer(Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10**6))
def test_rows_are_those_of_re_encoding_whatever_the_merges(seed):
    tokenizer = any_merges(seed)
    fast, slow = continuations_of(tokenizer), ReencodedContinuations(tokenizer)
    assert isinstance(fast, MergeContinuations)
    reachable = fast.after(())
    assert (reachable == slow.after(())).all()
    for token in np.flatnonzero(reachable).tolist():
        assert (fast.after((token,)) == slow.after((token,))).all()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 10**6), st.data())
def test_adjacent_pairs_decide_whatever_the_merges(seed, data):
    tokenizer = any_merges(seed)
    rows = continuations_of(tokenizer)
    reachable = np.flatnonzero(rows.after(())).tolist()
    for _ in range(8):
        sequence = data.draw(st.lists(st.sampled_from(reachable), min_size=2, max_size=5))
        by_pairs = all(rows.after(sequence[:end])[sequence[end]] for end in range(1, len(sequence)))
        assert by_pairs == is_valid(tokenizer, sequence)


TRAINED = [
    bpe.train(chain_texts(), 40),
    bpe.train([english()], 60, pieces=bpe.WORD_PIECES),
    bpe.train([english()], 330, alphabet=BYTES, pieces=SPACED_PIECES),
]


@pytest.mark.parametrize("tokenizer", TRAINED)
def test_rows_behind_texts_are_those_of_re_encoding_the_whole_text(tokenizer):
    text = chain_texts()[0] if tokenizer is TRAINED[0] else english(200)
    fast, slow = continuations_of(tokenizer), ReencodedContinuations(tokenizer, memory=tuple)
    generator = np.random.default_rng(0)
    seen = []
    for _ in range(12):
        start = int(generator.integers(len(text) - 40))
        tokens = tokenizer.encode(text[start : start + int(generator.integers(1, 40))])
        seen.append(fast.after(tokens))
        assert (seen[-1] == slow.after(tokens)).all()
    assert 0 < np.mean(seen) < 1


def test_two_equal_merges_across_and_behind_a_border_go_to_the_left_one():
    tokenizer = bpe.train(["aaaa"], 2)
    assert tokenizer.vocabulary == ("a", "aa")
    rows = continuations_of(tokenizer)
    # a aa: the border's merge is left of the one inside aa, so aaa is aa a.
    assert rows.after([0]).tolist() == [False, False]
    assert rows.after([1]).tolist() == [True, True]


def test_a_pre_tokenizer_that_neighbours_do_not_decide_is_refused():
    tokenizer = bpe.train(["abba abab"], 10, alphabet="ab ", pieces=r"[ab]{1,3}| ")
    with pytest.raises(NotDecidedByNeighbours):
        continuations_of(tokenizer)
