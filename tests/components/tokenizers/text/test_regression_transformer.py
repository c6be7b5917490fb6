import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text import regression_transformer
from components.tokenizers.text.regression_transformer import PlaceTokenizer, UnknownPlace, decimal_places

TOKENIZER = PlaceTokenizer(places=(-3, 5))


def pieces(text: str) -> list[str]:
    return [TOKENIZER.vocabulary[token] for token in TOKENIZER.encode(text)]


def test_every_digit_carries_its_decimal_place():
    assert pieces("365") == ["_3_2_", "_6_1_", "_5_0_"]
    assert pieces("-3.14") == ["-", "_3_0_", ".", "_1_-1_", "_4_-2_"]
    assert pieces("7+10.") == ["_7_0_", "+", "_1_1_", "_0_0_", "."]


@given(st.lists(st.tuples(st.integers(-99999, 99999), st.integers(0, 999)), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_values_of_a_number_s_tokens_add_up_to_it(numbers):
    value = dict(zip(TOKENIZER.number_tokens.ids, TOKENIZER.number_tokens.values, strict=True))
    for whole, thousandths in numbers:
        text = f"{whole}.{thousandths:03d}"
        total = sum(value.get(token, 0.0) for token in TOKENIZER.encode(text))
        assert total == pytest.approx(abs(float(text)), rel=1e-12)


@given(st.lists(st.text("0123456789. -ab", max_size=5), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_decoding_returns_every_text(texts):
    assert TOKENIZER.decode_all(TOKENIZER.encode_all(texts).ids) == texts


def test_digits_whose_places_do_not_fall_to_the_ones_are_no_number():
    token = {piece: place for place, piece in enumerate(TOKENIZER.vocabulary)}
    for wrong in (["_1_2_", "_2_1_"], ["_1_2_", "_2_0_"], ["_1_0_", "_2_0_"], ["_1_0_", ".", "_5_-2_"]):
        text = TOKENIZER.decode([token[piece] for piece in wrong])
        assert text == "".join(wrong)
    right = [token[piece] for piece in ("-", "_1_1_", "_2_0_")]
    assert TOKENIZER.decode([*right, TOKENIZER.end_token, token["_1_2_"]]) == "-12"


def test_places_are_counted_by_hand_where_digits_and_points_are_random():
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 4, (200, 9))
    digits, points = kinds >= 2, kinds == 1
    found = decimal_places(digits, points)
    for row in range(200):
        for place in np.flatnonzero(digits[row]):
            begin = end = place
            while begin > 0 and digits[row, begin - 1]:
                begin -= 1
            while end + 1 < 9 and digits[row, end + 1]:
                end += 1
            behind = begin > 1 and points[row, begin - 1] and digits[row, begin - 2]
            assert found[row, place] == (begin - place - 1 if behind else end - place)


def test_a_number_longer_than_the_vocabulary_is_refused():
    with pytest.raises(UnknownPlace, match="'1234567' has a digit outside the places -3 to 5"):
        TOKENIZER.encode("1234567")


def test_it_survives_a_file(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    assert regression_transformer.load(tmp_path / "tokenizer.json").vocabulary == TOKENIZER.vocabulary
    assert regression_transformer.build().encode("12") != TOKENIZER.encode("12")
