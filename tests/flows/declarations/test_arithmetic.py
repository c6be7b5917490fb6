"""Arithmetic in declarations gives Python's values and lets nothing else through."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.declarations.arithmetic import evaluate, names, parse

NUMBER = st.floats(0.5, 100).map(lambda value: round(value, 2))
LEAF = st.one_of(st.sampled_from(["a", "b"]), NUMBER.map(str))
EXPRESSION = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from(["log2", "sqrt", "ceil"]), inner).map(lambda parts: f"{parts[0]}({parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"max({parts[0]}, {parts[1]})"),
        # A tower of powers has exponents beyond what a declaration may have.
        inner.map(lambda part: part if part.endswith("** 2") else f"{part} ** 2"),
        inner.map(lambda part: f"-{part}"),
    ),
    max_leaves=8,
)


@given(EXPRESSION, NUMBER, NUMBER)
def test_it_computes_what_python_computes(text, a, b):
    scope = {"a": a, "b": b, "log2": math.log2, "sqrt": math.sqrt, "ceil": math.ceil, "max": max}
    try:
        truth = float(eval(text, {"__builtins__": {}}, scope))
    except (ArithmeticError, ValueError):
        truth = math.nan
    if math.isfinite(truth):
        assert evaluate(text, {"a": a, "b": b}) == pytest.approx(truth)
    else:
        with pytest.raises(ValueError):
            evaluate(text, {"a": a, "b": b})


def test_names_stand_in_their_order_and_functions_are_none():
    assert names("k * log2(codebook_size) / image_side ** 2 + k") == ("k", "codebook_size", "image_side")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "a.b",
        "a[0]",
        "a if b else c",
        "(lambda: 1)()",
        "'text'",
        "True",
        "log2",
        "log2()",
        "max(a, key=b)",
        "a < b",
        "a // b",
        "[a for a in b]",
        "(a := 1)",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected numbers, names"):
        parse(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("2 +", "is no expression"),
        ("a / 0", "no value"),
        ("unknown", "'unknown' has no number"),
        ("9 ** 99", "above 64"),
    ],
)
def test_a_value_that_does_not_exist_is_refused_with_the_reason(text, words):
    with pytest.raises(ValueError, match=words):
        evaluate(text, {"a": 1.0})
