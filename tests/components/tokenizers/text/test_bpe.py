import re
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from trained_twice import assert_same_bytes

from components.data.markov import random_binary_chain
from components.tokenizers.text.bpe import WORD_PIECES, BytePairError, load, train
from components.tokenizers.text.trie import UnknownSymbol

TEXT = "the theme then them that hat heat, meat: a team; an ant at the tent!\nThe end"


def english() -> str:
    return " ".join(np.random.default_rng(0).choice(TEXT.split(" "), size=600))


def chain_texts(seed: int = 0) -> list[str]:
    chain = random_binary_chain(seed, 3)
    return chain.texts(chain.sample(200, 100, np.random.default_rng(seed)))


def learn_merges(texts: list[str], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding from its definition; ties go to the pair of lowest ids."""
    ids = {symbol: place for place, symbol in enumerate(sorted(set("".join(texts))))}
    words, merges = [list(text) for text in texts], []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        words = [merge(word, best) for word in words]
    return merges


def merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged, place = [], 0
    while place < len(word):
        here = tuple(word[place : place + 2]) == pair
        merged.append("".join(pair) if here else word[place])
        place += 2 if here else 1
    return merged


def apply_merges(text: str, merges: list[tuple[str, str]]) -> list[str]:
    word = list(text)
    while ranks := [merges.index(pair) for pair in pairwise(word) if pair in merges]:
        word = merge(word, merges[min(ranks)])
    return word


@pytest.mark.parametrize("seed", range(3))
def test_learning_and_applying_merges_follow_the_definition(seed):
    texts = chain_texts(seed)[:60]
    tokenizer = train(texts, 10)
    merges = learn_merges(texts, 8)
    assert tokenizer.vocabulary == ("A", "B", *("".join(pair) for pair in merges))
    for text in texts[:20]:
        spelled = [tokenizer.vocabulary[token] for token in tokenizer.encode(text)]
        assert spelled == apply_merges(text, merges)
        assert tokenizer.first_tokens([text], 5)[0].tolist() == tokenizer.encode(text)[:5]


def test_merges_stay_inside_pieces_and_pieces_are_words_with_the_space_before_them():
    text = english()
    tokenizer = train([text], 60, pieces=WORD_PIECES)
    pieces = re.findall(WORD_PIECES, text)
    assert "".join(pieces) == text
    tokens, piece_of = tokenizer.encode_with_pieces(text)
    assert [token for piece in pieces for token in tokenizer.encode(piece)] == tokens
    ends = np.cumsum([len(tokenizer.vocabulary[token]) for token in tokens])
    last_of_piece = np.diff(piece_of, append=piece_of[-1] + 1) > 0
    assert ends[last_of_piece].tolist() == np.cumsum([len(piece) for piece in pieces]).tolist()


def test_the_start_of_the_last_piece_is_certain_whatever_follows():
    tokenizer = train([english()], 50, pieces=WORD_PIECES)
    beginnings = ["the ", "the t", "a; ", "end\n", "that hat,", "them  ", " ", ""]
    for text in beginnings:
        certain = tokenizer.certain_tokens(text)
        tokens = tokenizer.encode(text)
        for more in product(["a", "t", "h", " ", ",", "\n", "heme"], repeat=3):
            assert tokenizer.encode(text + "".join(more))[:certain] == tokens[:certain]
    assert tokenizer.certain_tokens("the then") == len(tokenizer.encode("the"))
    assert train(chain_texts(), 9).certain_tokens("ABAB") == 0


def test_training_twice_in_two_processes_gives_the_same_bytes(tmp_path: Path):
    trainings = {
        "plain": "train(text.split(','), 40)",
        "pieces": "train([text], 90, alphabet='xyz', pieces=WORD_PIECES)",
    }
    assert_same_bytes(tmp_path, "components.tokenizers.text.bpe", english(), trainings)


def test_saving_and_reading_changes_nothing(tmp_path: Path):
    for tokenizer in (train(chain_texts(), 9), train([english()], 60, pieces=WORD_PIECES)):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = load(tmp_path / "tokenizer.json")
        assert (again.vocabulary, again.pieces) == (tokenizer.vocabulary, tokenizer.pieces)


def test_a_symbol_that_training_never_saw_is_refused_instead_of_dropped():
    with pytest.raises(UnknownSymbol, match="C"):
        train(chain_texts(), 9).encode("ABC")


def test_a_vocabulary_smaller_than_the_alphabet_is_refused():
    with pytest.raises(BytePairError, match="26 symbols"):
        train(["abcdefghijklmnopqrstuvwxyz"], 10)
