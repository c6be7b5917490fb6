import numpy as np
import pytest

from components.tokenizers.text import xval
from components.tokenizers.text.numeric import UnknownCharacter
from components.tokenizers.text.xval import ValueTokenizer

TOKENIZER = ValueTokenizer()


def test_a_number_is_one_token_with_its_value_beside_it():
    encoded = TOKENIZER.encode_all(["34 - (-57)?", "no number", "1.5"])
    spelled = [[TOKENIZER.vocabulary[token] for token in row if token >= 0] for row in encoded.ids]
    assert spelled[0] == ["[NUM]", " ", "-", " ", "(", "[NUM]", ")", "?"]
    assert encoded.values[0, :8].tolist() == [34, 1, 1, 1, 1, -57, 1, 1]
    assert spelled[2] == ["[NUM]"]
    assert encoded.values[2, 0] == 1.5
    assert (encoded.values[1] == 1).all()
    assert encoded.lengths.tolist() == [8, 9, 1]


def test_decoding_writes_the_values_rounded_and_stops_at_the_end():
    texts = ["34 - (-57)?", "a 7 b 8", ""]
    encoded = TOKENIZER.encode_all(texts)
    assert TOKENIZER.decode_all(encoded.ids, encoded.values) == texts
    ids = np.array([[TOKENIZER.number_token, TOKENIZER.end_token, TOKENIZER.number_token]])
    assert TOKENIZER.decode_all(ids, np.array([[-3.6, 0.0, 9.0]])) == ["-4"]


def test_the_placeholder_is_no_character_of_a_text():
    for strange in ("ä", "#"):
        with pytest.raises(UnknownCharacter):
            TOKENIZER.encode_all(["fine", f"3 {strange}"])
    assert len(set(TOKENIZER.vocabulary)) == TOKENIZER.end_token + 1


def test_it_survives_a_file(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    assert xval.load(tmp_path / "tokenizer.json").vocabulary == TOKENIZER.vocabulary == xval.build().vocabulary
