"""Splits by hash and by position."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from components.data import splits

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def test_a_row_keeps_its_split_when_rows_are_added_or_reordered():
    few = splits.by_hash(range(50), SHARES, salt="s")
    many = splits.by_hash(range(99, -1, -1), SHARES, salt="s")
    assert many[::-1][:50] == few


def test_shares_are_met_within_four_standard_deviations():
    count = 20_000
    assigned = splits.by_hash(range(count), SHARES, salt="s")
    for name, share in SHARES.items():
        deviation = math.sqrt(count * share * (1 - share))
        assert abs(assigned.count(name) - count * share) < 4 * deviation


def test_data_sets_with_equal_identifiers_are_split_independently():
    left, right = (splits.by_hash(range(1000), {"a": 0.5, "b": 0.5}, salt=salt) for salt in ("x", "y"))
    agreement = sum(x == y for x, y in zip(left, right, strict=True))
    assert 400 < agreement < 600


def test_shares_that_add_up_to_one_only_nearly_still_cover_every_identifier():
    shares = {str(part): 0.1 for part in range(10)}
    assert set(splits.by_hash(range(5000), shares, salt="s")) == set(shares)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=60))
def test_parts_of_a_text_put_together_are_the_text(text):
    parts = splits.by_position(text, SHARES)
    assert "".join(parts.values()) == text
    assert list(parts) == list(SHARES)
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - share * len(text)) <= 1
