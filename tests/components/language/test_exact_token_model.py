from itertools import product

import numpy as np
import pytest
import torch

from components.data.markov import random_binary_chain
from components.language.exact_token_model import ExactTokenModel, ExactTokenModelError
from components.tokenizers.text import bpe
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import is_valid

LENGTH = 8
CHAIN = random_binary_chain(3, 3)
TEXTS = ["".join(letters) for letters in product("AB", repeat=LENGTH)]
PROBABILITIES = np.exp(CHAIN.log_probability(np.array([["AB".index(c) for c in text] for text in TEXTS])))
TOKENIZERS = [
    MaxPrefixTokenizer(["A", "B", "AA", "BAB", "ABB"]),
    bpe.train(CHAIN.texts(CHAIN.sample(100, 100, np.random.default_rng(0))), 7),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_conditionals_are_ratios_of_sums_over_all_texts(tokenizer):
    model = ExactTokenModel.of_chain(CHAIN, tokenizer, LENGTH)
    encodings = [tokenizer.encode(text) for text in TEXTS]

    def mass(sequence):
        begins = [encoding[: len(sequence)] == sequence for encoding in encodings]
        return PROBABILITIES[begins].sum()

    for encoding in encodings[::37]:
        rows = model.along(torch.tensor([encoding]))[0].exp().numpy()
        for place in range(len(encoding) + 1):
            context = encoding[:place]
            expected = [mass([*context, token]) / mass(context) for token in range(len(tokenizer.vocabulary))]
            assert rows[place] == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_where_a_text_may_end_anywhere_a_sequence_has_positive_probability_exactly_when_it_is_valid(tokenizer):
    texts = ["".join(letters) for length in range(1, LENGTH + 1) for letters in product("AB", repeat=length)]
    codes = [np.array([["AB".index(c) for c in text]]) for text in texts]
    log_probabilities = np.array([CHAIN.log_probability(code)[0] for code in codes]) - np.log(LENGTH)
    model = ExactTokenModel(tokenizer, texts, log_probabilities)
    valid = 0
    for sequence in product(range(len(tokenizer.vocabulary)), repeat=3):
        if len(tokenizer.decode(sequence)) <= LENGTH:
            rows = model.along(torch.tensor([sequence]))[0]
            log_probability = sum(rows[place, token].item() for place, token in enumerate(sequence))
            assert np.isfinite(log_probability) == is_valid(tokenizer, sequence)
            valid += is_valid(tokenizer, sequence)
    assert valid > 5


def test_what_only_ends_texts_never_begins_one_of_a_fixed_length():
    tokenizer = MaxPrefixTokenizer(["A", "B", "AA", "AB"])
    model = ExactTokenModel.of_chain(CHAIN, tokenizer, LENGTH)
    assert is_valid(tokenizer, [0])
    assert model.along(torch.zeros(1, 0, dtype=torch.int64))[0, 0, 0].item() == -np.inf


def test_next_token_probabilities_lack_only_the_texts_that_end():
    model = ExactTokenModel.of_chain(CHAIN, TOKENIZERS[0], LENGTH)
    rows = model.along(torch.tensor([TOKENIZERS[0].encode("ABABABBB")]))[0].exp().sum(-1)
    assert rows[0].item() == pytest.approx(1, abs=1e-12)
    assert rows[-1].item() == 0


def test_more_texts_than_memory_are_refused():
    with pytest.raises(ExactTokenModelError, match="2\\^40"):
        ExactTokenModel.of_chain(CHAIN, TOKENIZERS[0], 40)


def test_probabilities_that_do_not_sum_to_1_are_refused():
    with pytest.raises(ExactTokenModelError, match="sum to"):
        ExactTokenModel(TOKENIZERS[0], ["A", "B"], np.log([0.5, 0.4]))
