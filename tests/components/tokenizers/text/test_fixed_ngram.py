from itertools import product

import numpy as np
import pytest

from components.tokenizers.text.fixed_ngram import FixedNgramError, FixedNgramTokenizer, load
from components.tokenizers.text.trie import UnknownSymbol
from components.tokenizers.text.validity import Validity


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_text_is_cut_into_blocks_and_its_end_into_symbols(length):
    tokenizer = FixedNgramTokenizer("ab", length)
    assert len(tokenizer.vocabulary) == 2**length + (2 if length > 1 else 0)
    for letters in product("ab", repeat=7):
        text = "".join(letters)
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        blocks = len(text) // length
        assert [len(tokenizer.vocabulary[token]) for token in tokens] == [length] * blocks + [1] * (
            len(tokens) - blocks
        )
        certain = tokenizer.certain_tokens(text)
        assert all(tokenizer.encode(text + more)[:certain] == tokens[:certain] for more in ("a", "ba", "bbab"))


def test_the_memory_decides_validity_as_the_whole_sequence_does():
    tokenizer = FixedNgramTokenizer("ab", 3)
    quick, full = Validity(tokenizer), Validity(tokenizer, memory=lambda tokens: tokens)
    drawn = np.array(list(product([0, 7, 8, 9], repeat=5)))
    assert ((quick.states(drawn) >= 0) == (full.states(drawn) >= 0)).all()


def test_saving_and_reading_changes_nothing(tmp_path):
    tokenizer = FixedNgramTokenizer("ab", 2)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load(tmp_path / "tokenizer.json")
    assert (again.vocabulary, again.length) == (tokenizer.vocabulary, 2)


def test_what_makes_no_dictionary_is_refused():
    with pytest.raises(FixedNgramError, match="ascending"):
        FixedNgramTokenizer("ba", 2)
    with pytest.raises(FixedNgramError, match="too many"):
        FixedNgramTokenizer("ab", 40)
    with pytest.raises(UnknownSymbol, match="c"):
        FixedNgramTokenizer("ab", 2).encode("abc")
