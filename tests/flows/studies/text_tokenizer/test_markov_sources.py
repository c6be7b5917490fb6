"""Dictionaries of Markov sources, and what decides their tokens."""

import numpy as np
import pytest

from components.analysis.token_behaviour import Windows, conditional_table
from components.data.switching_chain import switching_chain
from components.language.unigram_lm import UnigramModel
from flows.studies.text_tokenizer.markov_sources import (
    DictionaryError,
    chain_of,
    draw_text,
    encode,
    tokenised,
    tokenizer_of,
)
from flows.studies.text_tokenizer.params import EvaluateParams, TrainParams


@pytest.mark.parametrize("tokenizer", ["bpe", "lzw"])
def test_the_context_of_a_token_decides_it_as_well_as_the_whole_past_does(tokenizer):
    """Summed over tokens, the counted conditional loses the entropy rate: nothing of the past is missing."""
    chain = switching_chain(2, 0.8, 0.8)
    params = TrainParams(experiment="transformer", tokenizer=tokenizer, tokenizer_characters=50_000)
    rule = tokenizer_of(params, chain, 0)
    lengths = np.array([len(token) for token in rule.vocabulary])
    windows = []
    for purpose, length in (("counted", 1_500_000), ("held out", 150_000)):
        codes = draw_text(chain, length, 0, purpose)
        windows.append(Windows.of(chain, codes, encode(rule, chain, codes), lengths, 50))
    counted, held_out = windows
    unigram = np.exp(UnigramModel.fit(counted.tokens.ravel(), len(lengths)).log_probabilities)
    known, table = conditional_table(counted.contexts.ravel(), counted.tokens.ravel(), unigram)
    row = np.searchsorted(known, held_out.contexts[1:])
    loss = -np.log(table[row, held_out.tokens[1:]]).sum() / held_out.lengths[1:].sum()
    assert loss == pytest.approx(chain.entropy_rate(), abs=0.004)


def test_every_dictionary_and_encoder_gives_the_text_back():
    chain = chain_of("general", 1)
    learned, text = draw_text(chain, 6000, 0, "dictionary"), draw_text(chain, 800, 0, "test")
    for tokenizer, encoder in (
        ("characters", "own"), ("fixed_ngram", "own"), ("lzw", "own"), ("lzw", "minimal"), ("bpe", "own"),
        ("bpe", "greedy"), ("bpe", "minimal"), ("bpe_sequential", "own"),
    ):  # fmt: skip
        params = EvaluateParams(tokenizer=tokenizer, encoder=encoder, chain_sizes=(2, 8, 64))
        sizes = []
        for encoded in tokenised(params, chain, learned, (text, learned)):
            sizes.append(encoded.size)
            assert encoded.lengths[encoded.texts[0]].sum() == 800
            assert encoded.lengths[encoded.texts[1]].sum() == 6000
        assert sizes == ([2] if tokenizer == "characters" else [2, 8, 64])
    with pytest.raises(DictionaryError, match="'unigram'"):
        list(tokenised(EvaluateParams(tokenizer="unigram"), chain, learned, (text,)))
