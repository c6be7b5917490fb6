from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import chain_texts, english
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from trained_twice import assert_same_bytes

from components.tokenizers.text import bpe
from components.tokenizers.text.bpe import WORD_PIECES, BytePairError
from components.tokenizers.text.bpe_trainer import encode_at_sizes, learn, learn_sequentially, train
from components.tokenizers.text.piecewise import piece_counts


def merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged, place = [], 0
    while place < len(word):
        here = tuple(word[place : place + 2]) == pair
        merged.append("".join(pair) if here else word[place])
        place += 2 if here else 1
    return merged


def definition(words: list[list[str]], size: int, symbols: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair encoding from its definition; ties go to the pair of lowest ids."""
    ids, merges = {symbol: place for place, symbol in enumerate(sorted(symbols))}, []
    while len(ids) < size and (pairs := Counter(pair for word in words for pair in pairwise(word))):
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        words = [merge(word, best) for word in words]
    return list(ids), merges


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab", max_size=30), min_size=1, max_size=4), st.integers(3, 14))
def test_learning_follows_the_definition_and_makes_no_token_twice(texts, size):
    merges = learn(Counter(texts), size, alphabet="abc")
    vocabulary, pairs = definition([list(text) for text in texts], size, "abc")
    assert list(merges.vocabulary) == vocabulary
    assert len(set(vocabulary)) == 3 + len(pairs)
    assert [tuple(merges.vocabulary[token] for token in pair) for pair in merges.pairs] == pairs


def test_on_words_it_learns_what_the_library_learns():
    for text, size, pieces in ((english(), 90, WORD_PIECES), (english(300), 60, "")):
        ours, theirs = train([text], size, pieces=pieces), bpe.train([text], size, pieces=pieces)
        assert ours.vocabulary == theirs.vocabulary
        assert ours.encode(text) == theirs.encode(text)


@settings(max_examples=40, deadline=None)
@given(st.text("ab", min_size=20, max_size=120), st.integers(3, 9))
def test_every_sequential_merge_is_learned_from_a_chunk_of_its_own(text, size):
    merges = size - 2
    length = len(text) // merges
    pairs, ids = [], {"a": 0, "b": 1}
    for start in range(0, length * merges, length):
        word = list(text[start : start + length])
        for pair in pairs:
            word = merge(word, pair)
        counts = Counter(pairwise(word))
        if counts:
            best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
            ids["".join(best)] = len(ids)
            pairs.append(best)
    learned = learn_sequentially(text, size, alphabet="ab")
    assert list(learned.vocabulary) == list(ids)
    assert [tuple(learned.vocabulary[token] for token in pair) for pair in learned.pairs] == pairs


def test_sequential_learning_says_what_it_needs():
    with pytest.raises(BytePairError, match="chunks of 1"):
        train(["abababab"], 8, sequential=True)
    with pytest.raises(BytePairError, match="leave 'pieces' empty"):
        train(["abababab"], 3, pieces=WORD_PIECES, sequential=True)
    with pytest.raises(BytePairError, match="3 symbols"):
        learn({"abc": 1}, 2)
    assert train(["abc"], 3, sequential=True).vocabulary == ("a", "b", "c")


def test_pieces_are_those_of_the_library_for_every_character_there_is():
    characters = "".join(chr(point) for point in range(0x11000) if not 0xD800 <= point < 0xE000)
    inside = "a".join(character for character in characters if character not in "\x1c\x1d\x1e\x1f")
    split = Split(Regex(WORD_PIECES), behavior="isolated")
    for text in (english(), inside, characters):
        assert piece_counts([text], WORD_PIECES) == dict(
            sorted(Counter(piece for piece, _ in split.pre_tokenize_str(text)).items())
        )
    # What no match covers, and what Python would read otherwise, is cut by the library.
    for text, pieces in (("one, two", "[a-z]+"), ("über_e\u0301 x", r"\w+|\W"), ("a\nb", "^a|.|\n")):
        found = Counter(piece for piece, _ in Split(Regex(pieces), behavior="isolated").pre_tokenize_str(text))
        assert piece_counts([text, ""], pieces) == dict(found)


def test_training_twice_in_two_processes_gives_the_same_bytes(tmp_path: Path):
    trainings = {
        "sequential": "train([text], 60, sequential=True)",
        "pieces": "train([text], 90, alphabet='xyz', pieces=WORD_PIECES)",
    }
    assert_same_bytes(tmp_path, "components.tokenizers.text.bpe_trainer", english() + chain_texts()[0], trainings)


@settings(max_examples=40, deadline=None)
@given(st.text("ab", min_size=30, max_size=80), st.text("ab", max_size=60))
def test_one_pass_encodes_with_all_vocabulary_sizes_as_the_library_does_with_each(text, other):
    merges = learn({text: 1}, 12, alphabet="ab")
    sizes = [2, 3, 5, 8, 12, 40]
    codes = np.array(["ab".index(symbol) for symbol in other], np.int64)
    for size, tokens in zip(sizes, encode_at_sizes(merges, codes, sizes), strict=True):
        smaller = learn({text: 1}, min(size, 12), alphabet="ab")
        assert tokens.tolist() == smaller.tokenizer().encode(other)
