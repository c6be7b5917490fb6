from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.markov import random_binary_chain
from components.tokenizers.text import bpe
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import Validity, is_valid

extra_tokens = st.lists(st.text("ab", min_size=2, max_size=4), max_size=5, unique=True)


def chain_bpe(seed: int, size: int) -> bpe.BytePairTokenizer:
    chain = random_binary_chain(seed, 3)
    return bpe.train(chain.texts(chain.sample(200, 100, np.random.default_rng(seed))), size)


def word_bpe() -> bpe.BytePairTokenizer:
    text = "the theme then, them that hat: heat a team an ant at\nthe tent! hhat atta ttea"
    words = np.random.default_rng(0).choice(text.split(" "), size=500)
    return bpe.train([" ".join(words)], 60, pieces=bpe.WORD_PIECES)


TOKENIZERS = [chain_bpe(0, 9), chain_bpe(1, 20), chain_bpe(2, 40), word_bpe()]


def random_sequences(validity: Validity, count: int) -> list[list[int]]:
    """Sequences of reachable tokens: most are valid up to a random place and go on at random from there."""
    generator = np.random.default_rng(0)
    reachable = np.flatnonzero(validity.continuations(0))
    sequences = []
    for _ in range(count):
        state, sequence = 0, []
        for _ in range(generator.integers(1, 7)):
            allowed = np.flatnonzero(validity.continuations(state)) if state >= 0 else reachable
            token = int(generator.choice(allowed if len(allowed) and generator.random() < 0.4 else reachable))
            sequence.append(token)
            state = validity.step(state, token) if state >= 0 else -1
        sequences.append(sequence)
    return sequences


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_adjacent_pairs_decide_validity_of_bpe_as_re_encoding_does(tokenizer):
    validity = Validity(tokenizer)
    sequences = random_sequences(validity, 4000)
    by_pairs = [validity.state(sequence) >= 0 for sequence in sequences]
    assert by_pairs == [is_valid(tokenizer, sequence) for sequence in sequences]
    assert 0.1 < np.mean(by_pairs) < 0.95


@settings(deadline=None, derandomize=True, max_examples=40)
@given(extra_tokens)
def test_the_reach_of_the_longest_token_decides_validity_of_maximum_prefix_encoding(extra):
    tokenizer = MaxPrefixTokenizer(["a", "b", *extra])
    short, whole = Validity(tokenizer), Validity(tokenizer, memory=tuple)
    for sequence in random_sequences(short, 60):
        assert (short.state(sequence) >= 0) == is_valid(tokenizer, sequence)
        assert (whole.state(sequence) >= 0) == is_valid(tokenizer, sequence)


def test_pairs_do_not_decide_validity_of_maximum_prefix_encoding():
    tokenizer = MaxPrefixTokenizer(["a", "b", "aba"])
    assert is_valid(tokenizer, [0, 1])
    assert is_valid(tokenizer, [1, 0])
    assert not is_valid(tokenizer, [0, 1, 0])
    assert Validity(tokenizer).state([0, 1, 0]) == -1
    assert Validity(tokenizer, memory=lambda tokens: tokens[-1:]).state([0, 1, 0]) >= 0


@pytest.mark.parametrize("tokenizer", [*TOKENIZERS, MaxPrefixTokenizer(["a", "b", "aba", "bb", "abab"])])
def test_every_prefix_of_a_valid_sequence_is_valid(tokenizer):
    validity = Validity(tokenizer, memory=tuple)
    for sequence in random_sequences(validity, 300):
        if is_valid(tokenizer, sequence):
            assert all(is_valid(tokenizer, sequence[:end]) for end in range(len(sequence)))


def test_states_along_many_sequences_are_those_of_each():
    validity = Validity(TOKENIZERS[1])
    sequences = [sequence for sequence in random_sequences(validity, 200) if len(sequence) >= 4]
    along = Validity(TOKENIZERS[1]).states(np.array([sequence[:4] for sequence in sequences])) >= 0
    expected = [[is_valid(TOKENIZERS[1], sequence[:end]) for end in range(5)] for sequence in sequences]
    assert along.tolist() == expected


@settings(deadline=None, derandomize=True, max_examples=40)
@given(extra_tokens)
def test_lasting_tokens_are_those_that_stand_in_long_texts(extra):
    tokenizer = MaxPrefixTokenizer(["a", "b", *extra])
    validity = Validity(tokenizer)
    length = 9
    encodings = [tokenizer.encode("".join(letters)) for letters in product("ab", repeat=length)]
    for context in ((), (0,), (1, 0)):
        if not any(tuple(encoding[: len(context)]) == context for encoding in encodings):
            continue
        followers = {encoding[len(context)] for encoding in encodings if tuple(encoding[: len(context)]) == context}
        if validity.state(context) >= 0:
            assert set(np.flatnonzero(validity.lasting(validity.state(context)))) == followers


def test_a_token_that_only_ends_texts_is_valid_but_does_not_last():
    validity = Validity(MaxPrefixTokenizer(["A", "B", "AA", "AB"]))
    assert validity.continuations(0).tolist() == [True, True, True, True]
    assert validity.lasting(0).tolist() == [False, True, True, True]
