from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.language.fill_in_middle import arrange, draw_order, draw_span

SPECIALS = {"<eos>": 256, "<pre>": 257, "<suf>": 258, "<mid>": 259}


def pairs(text: str) -> list[int]:
    """Encode two symbols at a time, so that encoding jointly and apart differ."""
    return [sum(map(ord, text[place : place + 2])) for place in range(0, len(text), 2)]


def single(text: str) -> list[int]:
    return [ord(symbol) for symbol in text]


@given(st.text(alphabet="abcxyz", max_size=12), st.data())
def test_each_order_holds_every_symbol_once_behind_its_mark(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    prefix, middle, suffix = (single(part) for part in (text[:start], text[start:end], text[end:]))
    assert arrange(text, (start, end), "plain", single, SPECIALS) == single(text)
    psm = arrange(text, (start, end), "psm", single, SPECIALS)
    assert psm == [257, *prefix, 258, *suffix, 259, *middle]
    spm = arrange(text, (start, end), "spm", single, SPECIALS)
    assert spm == [257, 258, *suffix, 259, *prefix, *middle]


def test_prefix_and_middle_of_spm_are_encoded_jointly_unless_told_otherwise():
    joint = arrange("abcd", (1, 3), "spm", pairs, SPECIALS)
    assert joint == [257, 258, ord("d"), 259, *pairs("abc")]
    apart = arrange("abcd", (1, 3), "spm", pairs, SPECIALS, joint=False)
    assert apart == [257, 258, ord("d"), 259, ord("a"), ord("b") + ord("c")]


def test_orders_and_spans_are_drawn_with_their_shares():
    generator = np.random.default_rng(0)
    counts = Counter(draw_order(0.25, 0.5, generator) for _ in range(4000))
    assert abs(counts["psm"] / 4000 - 0.25) < 0.03
    assert abs(counts["spm"] / 4000 - 0.5) < 0.03
    spans = Counter(draw_span(1, generator) for _ in range(4000))
    # Two cuts at two places: (0, 1) comes from two of the four pairs.
    assert abs(spans[(0, 1)] / 4000 - 0.5) < 0.03
    assert set(spans) == {(0, 0), (0, 1), (1, 1)}
