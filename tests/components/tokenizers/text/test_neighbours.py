import numpy as np
import pytest
from sample_texts import english

from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES
from components.tokenizers.text.neighbours import NotDecidedByNeighbours, piece_cuts


def cut_between(tokenizer, left: str, right: str) -> bool:
    tokens, pieces = tokenizer.encode_with_pieces(left + right)
    assert len(tokens) == 2 or pieces[0] == pieces[-1]
    return pieces[0] != pieces[-1]


@pytest.mark.parametrize("pieces", [SPACED_PIECES, bpe.WORD_PIECES])
def test_the_table_says_what_the_pre_tokenizer_does_with_every_pair_and_inside_texts(pieces):
    tokenizer = bpe.train([english()], 300, alphabet=BYTES, pieces=pieces)
    cuts = piece_cuts(tokenizer, BYTES)
    generator = np.random.default_rng(0)
    for left, right in generator.integers(256, size=(500, 2)).tolist():
        assert cuts[left, right] == cut_between(tokenizer, BYTES[left], BYTES[right])
    codes = generator.choice([*b" \nab_.;1\x85\xa0\xe9"], size=400)
    text = "".join(BYTES[code] for code in codes)
    tokens, numbers = tokenizer.encode_with_pieces(text)
    ends = np.cumsum([len(tokenizer.vocabulary[token]) for token in tokens])
    begins = set(ends[:-1][np.diff(numbers) > 0].tolist())
    assert begins == {place for place in range(1, 400) if cuts[codes[place - 1], codes[place]]}


def test_pieces_that_depend_on_more_than_neighbours_are_refused():
    tokenizer = bpe.train(["abba abab"], 10, alphabet="ab ", pieces=r"[ab]{1,3}| ")
    with pytest.raises(NotDecidedByNeighbours, match="cuts between"):
        piece_cuts(tokenizer, " ab")
