import math
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import chain_texts, english
from trained_twice import assert_same_bytes

from components.tokenizers.text.bpe import WORD_PIECES
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.trie import UnknownSymbol
from components.tokenizers.text.validity import Validity
from components.tokenizers.text.wordpiece import WordPieceError, learn, likelihood_gains, load, of_vocabulary, train


def likelihood(words: list[tuple[list[str], int]]) -> float:
    counts = Counter()
    for word, weight in words:
        for token in word:
            counts[token] += weight
    total = sum(counts.values())
    return sum(count * math.log(count / total) for count in counts.values())


def merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged, place = [], 0
    while place < len(word):
        here = tuple(word[place : place + 2]) == pair
        merged.append("".join(pair) if here else word[place])
        place += 2 if here else 1
    return merged


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcd", min_size=2, max_size=6), st.integers(1, 6), min_size=1, max_size=5))
def test_the_gain_of_a_merge_is_the_rise_of_the_likelihood(pieces):
    words = [(list(piece), weight) for piece, weight in pieces.items()]
    tokens, pairs = Counter(), Counter()
    for word, weight in words:
        tokens.update({symbol: weight * word.count(symbol) for symbol in set(word)})
        for pair in pairwise(word):
            pairs[pair] += weight
    for pair, count in pairs.items():
        if pair[0] == pair[1]:
            continue
        left, right = (np.array(["abcd".index(symbol)]) for symbol in pair)
        found = likelihood_gains(left, right, np.array([count]), np.array([tokens[symbol] for symbol in "abcd"]))
        after = [(merge(word, pair), weight) for word, weight in words]
        assert found[0] == pytest.approx(likelihood(after) - likelihood(words), abs=1e-9)


def test_a_doubled_token_gains_what_its_places_that_do_not_overlap_give():
    found = likelihood_gains(np.array([0]), np.array([0]), np.array([2]), np.array([4, 3]))
    before, after = [(list("aabaabb"), 1)], [(["aa", "b", "aa", "b", "b"], 1)]
    assert found[0] == pytest.approx(likelihood(after) - likelihood(before))


def test_every_token_learned_is_the_best_merge_of_the_text_at_that_time():
    pieces = {piece: count for piece, count in Counter(english().split(" ")).items() if "tt" not in piece}
    vocabulary = learn(pieces, 26)
    words = [(list(piece), count) for piece, count in pieces.items()]
    symbols = sorted(set("".join(pieces)))
    assert list(vocabulary[: len(symbols)]) == symbols
    for token in vocabulary[len(symbols) :]:
        gains = {}
        for pair in {pair for word, _ in words for pair in pairwise(word)}:
            after = [(merge(word, pair), count) for word, count in words]
            gains[pair] = likelihood(after) - likelihood(words)
        best = max(gains.values())
        chosen = [pair for pair, gain in gains.items() if "".join(pair) == token and gain > best - 1e-9]
        assert chosen
        words = [(merge(word, chosen[0]), count) for word, count in words]


def test_it_stops_where_no_merge_raises_the_likelihood():
    assert learn({"ab": 3}, 10) == ("a", "b", "ab")


@pytest.mark.parametrize("seed", range(3))
def test_encoding_is_the_longest_match(seed):
    tokenizer = train(chain_texts(seed), 12)
    matcher = MaxPrefixTokenizer(tokenizer.vocabulary)
    for text in chain_texts(seed + 10)[:20]:
        assert tokenizer.encode(text) == matcher.encode(text)
        assert tokenizer.certain_tokens(text[:9]) == matcher.certain_tokens(text[:9])
    assert tokenizer.encode("A" * 3000) == matcher.encode("A" * 3000)


def test_tokens_stay_inside_pieces_and_spell_the_text():
    tokenizer = train([english()], 60, pieces=WORD_PIECES)
    tokens, piece_of = tokenizer.encode_with_pieces(english())
    assert tokenizer.decode(tokens) == english()
    assert len(tokens) == len(piece_of)
    assert not [token for token in tokenizer.vocabulary if " " in token[1:]]
    latin = "".join(map(chr, range(256)))
    assert train([english()], 300, alphabet=latin, pieces=WORD_PIECES).vocabulary[:256] == tuple(latin)


@pytest.mark.parametrize("pieces", ["", WORD_PIECES])
def test_certain_tokens_stay_whatever_follows(pieces):
    tokenizer = train([english()], 45, pieces=pieces)
    for text in ["the ", "the t", "a; ", "that hat,", "them", " ", "", "tea\n", "the then them that hat heat"]:
        certain, tokens = tokenizer.certain_tokens(text), tokenizer.encode(text)
        for more in product(["a", "t", "h", " ", ",", "\n", "heme"], repeat=3):
            assert tokenizer.encode(text + "".join(more))[:certain] == tokens[:certain]
    assert tokenizer.certain_tokens("the then them that hat heat") >= 5


def test_the_memory_decides_validity_as_the_whole_sequence_does():
    for tokenizer in (of_vocabulary(["a", "b", "aab", "ab", "ba"]), train([english()], 36, pieces=WORD_PIECES)):
        quick, full = Validity(tokenizer), Validity(tokenizer, memory=lambda tokens: tokens)
        drawn = np.random.default_rng(0).integers(len(tokenizer.vocabulary), size=(300, 4))
        assert ((quick.states(drawn) >= 0) == (full.states(drawn) >= 0)).all()


def test_training_twice_in_two_processes_gives_the_same_bytes(tmp_path: Path):
    trainings = {
        "plain": "train(text.split(','), 40)",
        "pieces": "train([text], 90, alphabet='xyz', pieces=WORD_PIECES)",
    }
    assert_same_bytes(tmp_path, "components.tokenizers.text.wordpiece", english(), trainings)


def test_saving_and_reading_changes_nothing(tmp_path: Path):
    for tokenizer in (train(chain_texts(), 9), train([english()], 60, pieces=WORD_PIECES)):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = load(tmp_path / "tokenizer.json")
        assert (again.vocabulary, again.pieces) == (tokenizer.vocabulary, tokenizer.pieces)
        text = chain_texts()[0] if tokenizer.pieces == "" else english()
        assert again.encode(text) == tokenizer.encode(text)


def test_what_cannot_be_learned_or_encoded_is_refused():
    with pytest.raises(UnknownSymbol, match="C"):
        train(chain_texts(), 9).encode("ABC")
    with pytest.raises(WordPieceError, match="26 symbols"):
        train(["abcdefghijklmnopqrstuvwxyz"], 10)
    with pytest.raises(WordPieceError, match="at least one symbol"):
        train([], 10)
