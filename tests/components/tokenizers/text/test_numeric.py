import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import TesseraError
from components.tokenizers.text import numeric
from components.tokenizers.text.numeric import ALPHABET, NOTHING, CharacterTokenizer, NumberTokens, UnknownCharacter

TOKENIZER = CharacterTokenizer()
TEXTS = st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=6)


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_decoding_returns_every_text(texts):
    encoded = TOKENIZER.encode_all(texts)
    assert TOKENIZER.decode_all(encoded.ids) == texts
    assert encoded.lengths.tolist() == [len(text) for text in texts]
    for text, row in zip(texts, encoded.ids, strict=True):
        expected = [TOKENIZER.vocabulary.index(character) for character in text]
        assert row[: len(text)].tolist() == expected == TOKENIZER.encode(text)[: len(text)]
        assert (row[len(text) :] == NOTHING).all()


def test_every_digit_is_a_token_worth_its_value_and_nothing_else_is_a_number():
    ids, values = TOKENIZER.number_tokens.ids, TOKENIZER.number_tokens.values
    assert [TOKENIZER.vocabulary[token] for token in ids] == list("0123456789")
    assert values == tuple(range(10))
    # Superscripts and full-width digits are numbers for Python and no tokens here.
    for strange in "²١５":
        with pytest.raises(UnknownCharacter, match="at 3 is no token"):
            TOKENIZER.encode_all(["fine", f"12 {strange}"])


def test_what_stands_behind_the_end_token_is_not_read():
    end = TOKENIZER.end_token
    ids = [*TOKENIZER.encode("-42"), end, *TOKENIZER.encode("7"), end]
    assert TOKENIZER.decode(ids) == "-42"
    assert TOKENIZER.decode([end]) == ""
    assert TOKENIZER.decode_all(np.zeros((2, 0), np.int64)) == ["", ""]


def test_the_vocabulary_has_about_fifty_tokens_and_survives_a_file(tmp_path):
    assert 45 <= len(TOKENIZER.vocabulary) <= 50
    TOKENIZER.save(tmp_path / "tokenizer.json")
    assert numeric.load(tmp_path / "tokenizer.json").vocabulary == numeric.build().vocabulary == TOKENIZER.vocabulary


@pytest.mark.parametrize("alphabet", ["abc", "01234567899a"])
def test_an_alphabet_without_ten_different_digits_is_refused(alphabet):
    with pytest.raises(TesseraError, match="the ten digits among them"):
        CharacterTokenizer(alphabet)


def test_shuffled_values_are_the_same_values_elsewhere_and_differ_between_seeds():
    shuffled = [TOKENIZER.number_tokens.shuffled(seed) for seed in range(5)]
    assert all(sorted(tokens.values) == list(range(10)) for tokens in shuffled)
    assert all(tokens.ids == TOKENIZER.number_tokens.ids for tokens in shuffled)
    assert len({tokens.values for tokens in shuffled}) == 5
    assert TOKENIZER.number_tokens.shuffled(1) == shuffled[1] != NumberTokens((), ())
