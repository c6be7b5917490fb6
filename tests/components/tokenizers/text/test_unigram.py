import math
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import chain_texts, english
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from trained_twice import assert_same_bytes

from components.tokenizers.text.bpe import WORD_PIECES
from components.tokenizers.text.piecewise import with_pieces
from components.tokenizers.text.trie import UnknownSymbol
from components.tokenizers.text.unigram import UnigramTokenizer, load, train
from components.tokenizers.text.unigram_trainer import UnigramError, _Lattice, _Strings, learn
from components.tokenizers.text.validity import Validity, is_valid


def segmentations(text: str, tokens) -> list[list[str]]:
    if not text:
        return [[]]
    return [
        [text[:size], *rest]
        for size in range(1, len(text) + 1)
        if text[:size] in tokens
        for rest in segmentations(text[size:], tokens)
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=7), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_expected_counts_are_those_of_all_segmentations_enumerated(pieces, random):
    counts = {piece: random.randint(1, 5) for piece in sorted(pieces)}
    symbols = sorted({symbol for piece in pieces for symbol in piece})
    strings = _Strings.of(counts, symbols, 4)
    kept = strings.seeds(100)
    scores = np.array([math.log(random.uniform(0.05, 1)) for _ in kept])
    lattice = _Lattice(strings, kept, list(counts.values()))
    if len(kept) > len(symbols):
        stay = np.ones(len(kept), bool)
        stay[random.randrange(len(symbols), len(kept))] = False
        kept, scores = kept[stay], scores[stay]
        lattice.prune(stay)
    score = {strings.text(string, symbols): value for string, value in zip(kept, scores, strict=True)}
    expected = Counter()
    for piece, count in counts.items():
        ways = segmentations(piece, score)
        weights = np.array([math.exp(sum(score[token] for token in way)) for way in ways])
        for way, weight in zip(ways, weights / weights.sum(), strict=True):
            for token in way:
                expected[token] += count * weight
    found = dict(zip(score, lattice.expected_counts(scores), strict=True))
    assert found == pytest.approx({token: expected[token] for token in score}, abs=1e-9)

    others = {
        token: max(sum(score[part] for part in way) for way in segmentations(token, score) if way != [token])
        for token in score
        if len(token) > 1
    }
    alternatives = dict(zip(score, strings.alternatives(kept, scores), strict=True))
    assert {token: alternatives[token] for token in others} == pytest.approx(others)


def test_seeds_are_the_repeated_strings_that_no_one_symbol_always_follows():
    counts = {"abab": 3, "abc": 1, "xyz": 1}
    symbols = sorted("abcxyz")
    strings = _Strings.of(counts, symbols, 16)
    occurrences = Counter()
    for piece, count in counts.items():
        for begin in range(len(piece)):
            for end in range(begin + 1, len(piece) + 1):
                occurrences[piece[begin:end]] += count
    expected = {
        string: count
        for string, count in occurrences.items()
        if len(string) > 1 and count >= 2 and all(occurrences[string + symbol] < count for symbol in symbols)
    }
    found = {strings.text(each, symbols): strings.count[each] for each in strings.seeds(100)}
    assert {string: count for string, count in found.items() if len(string) > 1} == expected


@pytest.mark.parametrize("seed", range(3))
def test_the_encoding_is_the_most_probable_segmentation(seed):
    tokens = learn(dict(Counter(chain_texts(seed))), 12)
    tokenizer = train(chain_texts(seed), 12)
    score = dict(tokens)
    assert tokenizer.vocabulary == tuple(score)
    assert sum(map(math.exp, score.values())) == pytest.approx(1)
    for text in [text[:10] for text in chain_texts(seed + 10)[:20]]:
        best = max(sum(score[token] for token in way) for way in segmentations(text, score))
        spelled = [tokenizer.vocabulary[token] for token in tokenizer.encode(text)]
        assert sum(score[token] for token in spelled) == pytest.approx(best)
        assert "".join(spelled) == text
        assert tokenizer.first_tokens([text], 3)[0].tolist() == tokenizer.encode(text)[:3]


def test_learned_tokens_describe_the_text_in_fewer_nats_than_byte_pairs_do():
    from components.tokenizers.text import bpe

    def nats(tokenizer) -> float:
        counts = np.array(list(Counter(tokenizer.encode(english())).values()))
        return float(-(counts * np.log(counts / counts.sum())).sum())

    assert nats(train([english()], 40, pieces=WORD_PIECES)) < nats(bpe.train([english()], 40, pieces=WORD_PIECES))


def test_the_alphabet_comes_first_also_where_the_text_lacks_it():
    latin = "".join(map(chr, range(256)))
    tokenizer = train([english()], 300, alphabet=latin, pieces=WORD_PIECES)
    assert tokenizer.vocabulary[:256] == tuple(latin)
    assert len(tokenizer.vocabulary) == 300
    text = "Ünïcode\x00\x85\xa0 \x7f".encode().decode("latin-1")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert train([""], 3, alphabet="ab").encode("abba") == [0, 1, 1, 0]


def test_tokens_stay_inside_pieces_and_below_the_longest_length():
    tokenizer = train([english()], 60, pieces=WORD_PIECES, longest=3)
    assert max(map(len, tokenizer.vocabulary)) == 3
    tokens, piece_of = tokenizer.encode_with_pieces(english())
    assert len(tokens) == len(piece_of)
    assert not [token for token in tokenizer.vocabulary if " " in token[1:]]


@pytest.mark.parametrize("pieces", ["", WORD_PIECES])
def test_certain_tokens_stay_whatever_follows_and_are_no_fewer_than_can_be(pieces):
    tokenizer = train([english()], 45, pieces=pieces)
    for text in ["the ", "the t", "a; ", "that hat,", "them", " ", "", "tea\n", "the then them that hat heat"]:
        certain, tokens = tokenizer.certain_tokens(text), tokenizer.encode(text)
        for more in product(["a", "t", "h", " ", ",", "\n", "heme"], repeat=3):
            assert tokenizer.encode(text + "".join(more))[:certain] == tokens[:certain]
    assert tokenizer.certain_tokens("the then them that hat heat") >= 5


def test_the_memory_decides_validity_as_the_whole_sequence_does():
    # AB is best as A B and BC as B C, but ABC is a token of its own: adjacent pairs do not decide.
    scores = [("A", -1.0), ("B", -1.0), ("C", -1.0), ("ABC", -2.0), (" ", -1.0), (" A", -1.5)]
    plain = UnigramTokenizer(Tokenizer(Unigram(scores)))
    cut = UnigramTokenizer(with_pieces(Tokenizer(Unigram(scores)), " ?[A-C]+| "), " ?[A-C]+| ")
    drawn = np.array(list(product(range(6), repeat=4)))
    for tokenizer in (plain, cut):
        assert is_valid(tokenizer, (0, 1))
        assert is_valid(tokenizer, (1, 2))
        assert not is_valid(tokenizer, (0, 1, 2))
        quick, full = Validity(tokenizer), Validity(tokenizer, memory=lambda tokens: tokens)
        assert ((quick.states(drawn) >= 0) == (full.states(drawn) >= 0)).all()
    assert cut.validity_memory((0, 4, 0, 1)) == plain.validity_memory((0, 4, 0, 1))[1:]


def test_training_twice_in_two_processes_gives_the_same_bytes(tmp_path: Path):
    trainings = {
        "plain": "train(text.split(','), 40)",
        "pieces": "train([text], 90, alphabet='xyz', pieces=WORD_PIECES)",
    }
    assert_same_bytes(tmp_path, "components.tokenizers.text.unigram", english(), trainings)


def test_saving_and_reading_changes_nothing(tmp_path: Path):
    for tokenizer in (train(chain_texts(), 9), train([english()], 60, pieces=WORD_PIECES)):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = load(tmp_path / "tokenizer.json")
        assert (again.vocabulary, again.pieces) == (tokenizer.vocabulary, tokenizer.pieces)
        text = chain_texts()[0] if tokenizer.pieces == "" else english()
        assert again.encode(text) == tokenizer.encode(text)


def test_a_symbol_that_training_never_saw_is_refused_instead_of_dropped():
    with pytest.raises(UnknownSymbol, match="C"):
        train(chain_texts(), 9).encode("ABC")


def test_a_vocabulary_smaller_than_the_alphabet_is_refused():
    with pytest.raises(UnigramError, match="26 symbols"):
        train(["abcdefghijklmnopqrstuvwxyz"], 10)
    with pytest.raises(UnigramError, match="at least one symbol"):
        train([], 10)
