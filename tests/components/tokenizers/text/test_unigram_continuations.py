import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import english
from tokenizers import Tokenizer
from tokenizers.models import Unigram

from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES
from components.tokenizers.text.continuations import ReencodedContinuations, continuations_of
from components.tokenizers.text.unigram import UnigramTokenizer, train
from components.tokenizers.text.unigram_continuations import UnigramContinuations
from components.tokenizers.text.validity import is_valid


def any_unigram(seed: int) -> UnigramTokenizer:
    """Any tokens with any probabilities; every other time few different ones, so that segmentations tie."""
    draw = random.Random(seed)
    alphabet = "ab" if draw.random() < 0.5 else "abc"
    tokens = list(alphabet)
    for _ in range(draw.randint(1, 10)):
        token = "".join(draw.choice(alphabet) for _ in range(draw.randint(2, 5)))
        tokens += [token] * (token not in tokens)
    scores = [-float(draw.randint(1, 6)) if seed % 2 else -draw.uniform(0.5, 4) for _ in tokens]
    return UnigramTokenizer(Tokenizer(Unigram(list(zip(tokens, scores, strict=True)))))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10**6), st.lists(st.sampled_from("aab"), max_size=9))
def test_rows_are_those_of_re_encoding_whatever_the_probabilities(seed, letters):
    tokenizer = any_unigram(seed)
    fast, slow = continuations_of(tokenizer), ReencodedContinuations(tokenizer, memory=tuple)
    assert isinstance(fast, UnigramContinuations)
    tokens = tokenizer.encode("".join(letters))
    assert (fast.after(tokens) == slow.after(tokens)).all()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 10**6), st.lists(st.sampled_from("aab"), min_size=1, max_size=9))
def test_beginnings_of_encodings_are_encodings(seed, letters):
    # The proof of the cover's form needs this. Best segmentations need not have it; with these tie rules they do.
    tokenizer = any_unigram(seed)
    tokens = tokenizer.encode("".join(letters))
    assert all(is_valid(tokenizer, tokens[:end]) for end in range(len(tokens)))


def test_rows_behind_pieces_of_texts_are_those_of_re_encoding_the_whole_text():
    text = english(200)
    tokenizer = train([english()], 300, alphabet=BYTES, pieces=SPACED_PIECES)
    fast, slow = continuations_of(tokenizer), ReencodedContinuations(tokenizer, memory=tuple)
    generator = np.random.default_rng(0)
    for _ in range(12):
        start = int(generator.integers(len(text) - 40))
        tokens = tokenizer.encode(text[start : start + int(generator.integers(0, 40))])
        assert (fast.after(tokens) == slow.after(tokens)).all()
