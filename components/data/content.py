"""A hash of what a table holds, whichever way it was encoded.

It covers column names, types, values and their order, not the file format, compression or row groups,
so that two sources that serve the same table in different encodings have the same hash.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import polars as pl

from components.data.parquet import spelling


def content_sha256(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a table's content in hexadecimal.

    Every column is fed as its name and type, its nulls, and its values in little-endian order; texts and lists are
    preceded by their lengths, so that no two tables give the same bytes.
    """
    digest = hashlib.sha256(b"tessera-content-1")
    _feed_number(digest, frame.height)
    for series in frame.get_columns():
        _feed_text(digest, series.name)
        _feed_text(digest, str(spelling(series.dtype)))
        _feed(digest, series)
    return digest.hexdigest()


def _feed_number(digest, number: int) -> None:
    digest.update(struct.pack("<q", number))


def _feed_text(digest, text: str) -> None:
    _feed_number(digest, len(text.encode()))
    digest.update(text.encode())


def _feed_array(digest, values: np.ndarray) -> None:
    digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")))


def _feed(digest, series: pl.Series) -> None:
    nulls = series.null_count()
    _feed_number(digest, nulls)
    if nulls:
        _feed_array(digest, np.packbits(series.is_null().to_numpy()))
        series = series.drop_nulls()
    dtype = series.dtype
    if dtype == pl.String or dtype == pl.Binary:
        values = series.cast(pl.Binary)
        _feed_array(digest, values.bin.size("b").cast(pl.Int64).to_numpy())
        digest.update(b"".join(values.to_list()))
    elif isinstance(dtype, pl.List):
        _feed_array(digest, series.list.len().cast(pl.Int64).to_numpy())
        _feed(digest, series.explode(empty_as_null=False))
    elif isinstance(dtype, pl.Array):
        _feed(digest, series.explode())
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            _feed_text(digest, field.name)
            _feed(digest, series.struct.field(field.name))
    else:
        _feed_array(digest, series.to_numpy())
