import math

import numpy as np
import pytest

from components.data.switching_chain import block_entropy, character_entropy, sample_text, switching_chain
from components.language.unigram_lm import UnigramModel, UnigramModelError, renewal_loss
from components.tokenizers.text import bpe_trainer, encoders, lzw
from components.tokenizers.text.fixed_ngram import FixedNgramTokenizer
from components.tokenizers.text.trie import VocabularyTrie

LENGTH = 60_000
CHAIN = switching_chain(1, 0.8, 0.6)
LEARNED, FITTED, TESTED = (sample_text(CHAIN, LENGTH, np.random.default_rng(seed)) for seed in range(3))
TEXT = "".join(CHAIN.alphabet[code] for code in LEARNED)


def losses(encode, size: int) -> tuple[float, float]:
    model = UnigramModel.fit(encode(FITTED), size)
    tokens = encode(TESTED)
    return model.loss(tokens, LENGTH), renewal_loss(tokens, size, LENGTH)


def standard_error(chain, nats_per_character: float = 0.6) -> float:
    return nats_per_character / math.sqrt(LENGTH)


def test_the_estimate_is_the_share_of_raised_counts():
    model = UnigramModel(np.array([3, 0, 1]))
    assert np.exp(model.log_probabilities) == pytest.approx([3.5 / 5.5, 0.5 / 5.5, 1.5 / 5.5])
    assert model.token_nats(np.array([1])) == pytest.approx(math.log(11))


def test_the_loss_is_the_token_nats_and_the_length_over_characters():
    model = UnigramModel(np.array([1, 1]), pseudocount=1e-12)
    assert model.loss(np.array([0, 1, 1]), 5) == pytest.approx((3 * math.log(2) + math.log(5)) / 5)


def test_characters_alone_lose_the_entropy_of_a_character():
    measured, renewal = losses(lambda codes: codes, 2)
    assert measured == pytest.approx(character_entropy(CHAIN), abs=3 * standard_error(CHAIN))
    assert renewal == pytest.approx(character_entropy(CHAIN), abs=3 * standard_error(CHAIN))


@pytest.mark.parametrize("length", range(1, 7))
def test_blocks_lose_their_entropy_per_character(length):
    tokenizer = FixedNgramTokenizer(CHAIN.alphabet, length)
    closed = block_entropy(CHAIN, length) / length
    assert closed == pytest.approx((character_entropy(CHAIN) + (length - 1) * CHAIN.entropy_rate()) / length, abs=1e-12)
    measured, renewal = losses(tokenizer.encode_codes, len(tokenizer.vocabulary))
    assert measured == pytest.approx(closed, abs=3 * standard_error(CHAIN))
    assert renewal == pytest.approx(closed, abs=3 * standard_error(CHAIN))


def test_no_loss_falls_below_the_entropy_rate():
    for size in (2, 8, 64):
        for vocabulary in (
            lzw.learn([TEXT], size),
            bpe_trainer.learn({TEXT: 1}, size).vocabulary,
        ):
            trie = VocabularyTrie(vocabulary)
            for encoder in (encoders.greedy, encoders.minimal):
                measured, _ = losses(lambda codes, encoder=encoder, trie=trie: encoder(trie, codes), size)
                assert measured > CHAIN.entropy_rate() - 3 * standard_error(CHAIN)


def test_one_oracle_has_the_same_loss_per_character_in_every_tokenisation():
    """The loss of the chain itself, summed token by token: equal per character, not equal per token."""
    coded = {
        "characters": TESTED.astype(np.int64),
        "blocks": FixedNgramTokenizer("01", 2).encode_codes(TESTED),
    }
    step = np.log(CHAIN.transitions)
    totals = {}
    for name, tokens in coded.items():
        spelled = ["0", "1"] if name == "characters" else list(FixedNgramTokenizer("01", 2).vocabulary)
        last, total = None, 0.0
        for token in tokens[:2000].tolist():
            for symbol in map(int, spelled[token]):
                total += step[last, symbol] if last is not None else math.log(CHAIN.character_frequencies[symbol])
                last = symbol
        characters = sum(len(spelled[token]) for token in tokens[:2000].tolist())
        totals[name] = (-total, characters, 2000)
    per_character = [total / characters for total, characters, _ in totals.values()]
    per_token = [total / tokens for total, _, tokens in totals.values()]
    assert per_character[0] == pytest.approx(per_character[1], rel=0.05)
    assert per_token[1] > 1.8 * per_token[0]


def test_what_has_no_meaning_is_refused():
    with pytest.raises(UnigramModelError, match="positive pseudocount"):
        UnigramModel(np.array([1, 2]), pseudocount=0)
    with pytest.raises(UnigramModelError, match="expected at least as many"):
        UnigramModel(np.array([1, 2])).loss(np.zeros(5, np.int64), 4)
