import re

from hypothesis import given
from hypothesis import strategies as st

from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES, byte_lengths, to_bytes, to_symbols


@given(st.text())
def test_symbols_are_the_bytes_of_a_text(text):
    symbols = to_symbols(text)
    assert len(symbols) == len(text.encode())
    assert set(symbols) <= set(BYTES)
    assert to_bytes(symbols).decode() == text


@given(st.binary())
def test_any_bytes_pass(data):
    assert to_bytes(to_symbols(data)) == data


@given(st.text(alphabet=BYTES, max_size=40))
def test_pieces_cover_a_text_and_end_where_two_neighbours_say_so(symbols):
    pieces = re.findall(SPACED_PIECES, symbols)
    assert "".join(pieces) == symbols
    ends, place = set(), 0
    for piece in pieces[:-1]:
        place += len(piece)
        ends.add(place)

    def kind(symbol: str) -> str:
        return "space" if symbol.isspace() else "letter" if re.match("[A-Za-z_]", symbol) else "sign"

    for index in range(1, len(symbols)):
        before, after = kind(symbols[index - 1]), kind(symbols[index])
        assert (index in ends) == (before != "space" and before != after), (before, after)


def test_lengths_count_bytes():
    assert byte_lengths(("a", to_symbols("ß"), "abc")).tolist() == [1, 2, 3]
