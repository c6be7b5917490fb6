"""The content hash: blind to encoding, sensitive to everything a reader would see."""

from __future__ import annotations

import hashlib
import struct

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data import parquet
from components.data.content import content_sha256
from components.data.fetched import file_sha256

FRAME = pl.DataFrame(
    {
        "number": pl.Series([1, 2, None], dtype=pl.Int16),
        "text": ["a", None, "bc"],
        "bytes": [b"", b"\x00", b"xyz"],
        "list": [["a", "b"], [], None],
        "array": pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.UInt8, 2)),
        "objects": [[{"x": 1.5, "box": [1, 2]}], [], [{"x": None, "box": []}, {"x": -0.0, "box": [3]}]],
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"compression": "uncompressed", "row_group_size": 1},
        {"use_pyarrow": True},
        {"statistics": False},
    ],
)
def test_the_hash_does_not_depend_on_the_encoding(tmp_path, options):
    FRAME.write_parquet(tmp_path / "a.parquet", **options)
    assert content_sha256(parquet.read(tmp_path / "a.parquet")) == content_sha256(FRAME)


def test_the_hash_does_not_depend_on_chunks():
    assert content_sha256(pl.concat([FRAME[:1], FRAME[1:]], rechunk=False)) == content_sha256(FRAME)


@pytest.mark.parametrize(
    "changed",
    [
        FRAME.rename({"number": "numbers"}),
        FRAME.with_columns(pl.col("number").cast(pl.Int32)),
        FRAME.with_columns(pl.col("number").fill_null(0)),
        FRAME.with_columns(pl.col("text").fill_null("")),
        FRAME.with_columns(pl.Series("text", ["ab", None, "c"])),
        FRAME.with_columns(pl.Series("list", [["a"], ["b"], None])),
        FRAME.with_columns(pl.Series("list", [["a", "b"], None, None], dtype=pl.List(pl.String))),
        FRAME.with_columns(pl.Series("array", [[1, 2], [3, 4], [5, 7]], dtype=pl.Array(pl.UInt8, 2))),
        FRAME.with_columns(pl.Series("objects", [[{"x": 1.5, "box": [1, 2]}], [], [{"x": None, "box": [3]}]])),
        FRAME.select(FRAME.columns[::-1]),
        FRAME[::-1],
        FRAME[:2],
    ],
)
def test_any_change_of_content_changes_the_hash(changed):
    assert content_sha256(changed) != content_sha256(FRAME)


def test_the_hash_of_a_small_table_is_the_one_spelled_out_by_hand():
    frame = pl.DataFrame({"t": ["ab", "c"], "l": pl.Series([[5, None], []], dtype=pl.List(pl.Int16))})
    number = lambda value: struct.pack("<q", value)  # noqa: E731
    text = lambda value: number(len(value)) + value  # noqa: E731
    fed = b"tessera-content-1" + number(2)
    fed += text(b"t") + text(b"string") + number(0) + number(2) + number(1) + b"abc"
    fed += text(b"l") + text(b"{'list': 'int16'}") + number(0) + number(2) + number(0)
    # The values in the lists: one null, marked in the second bit from the left, and 5.
    fed += number(1) + bytes([0b01000000]) + struct.pack("<h", 5)
    assert content_sha256(frame) == hashlib.sha256(fed).hexdigest()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=5), st.lists(st.text(max_size=3), max_size=5))
def test_two_columns_of_text_have_equal_hashes_only_if_they_are_equal(left, right):
    frames = [pl.DataFrame({"t": values}, schema={"t": pl.String}) for values in (left, right)]
    assert (content_sha256(frames[0]) == content_sha256(frames[1])) == (left == right)


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
