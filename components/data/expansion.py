"""What a fetched file grows to when it is read, found before anything reads it whole.

A file whose SHA-256 is declared is the file that somebody looked at. One that its publisher packs anew may be any file:
a few kilobytes of gzip hold gigabytes of zeros, and a Parquet footer of a hundred bytes promises billions of rows.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path

import polars as pl

from components.data.errors import DataError

RATIO = 100
"""Times the size of the file; texts and pictures shrink to a twentieth at best."""
ALWAYS_FINE = 256 * 2**20
"""Bytes that any file may grow to: a small text of one letter shrinks further."""
LARGEST = 8 * 2**30
"""Bytes that no file may grow to."""
LARGEST_ROWS = 100_000_000
"""Rows that no table may have."""

_STEP = 1 << 20
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))


class ExpandsTooFar(DataError):
    """A file is a decompression bomb, or far larger inside than any data set here."""


def check_expansion(path: Path, where: str) -> None:
    """Check how large a compressed file or a Parquet file is inside; other files are as large as they are.

    Args:
        path: The file.
        where: What to call it in a message.

    Raises:
        ExpandsTooFar: It is larger than it may be.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    size = path.stat().st_size
    limit = min(LARGEST, max(ALWAYS_FINE, RATIO * size))
    for magic, opener in _OPENERS:
        if start.startswith(magic) and _grows_beyond(path, opener, limit):
            raise ExpandsTooFar(
                f"{where} ({size} bytes) grows to more than {limit} bytes, which no data set here does. Expected the "
                "publisher's file: look at it before you use it, and pin it by its SHA-256 in params/data.yaml."
            )
    if start.startswith(b"PAR1") and (rows := _rows(path)) > LARGEST_ROWS:
        raise ExpandsTooFar(
            f"{where} ({size} bytes) promises {rows} rows, expected at most {LARGEST_ROWS}. Look at it before you use "
            "it, and pin it by its SHA-256 in params/data.yaml."
        )


def _grows_beyond(path: Path, opener, limit: int) -> bool:
    grown = 0
    try:
        with opener(path, "rb") as content:
            while part := content.read(_STEP):
                grown += len(part)
                if grown > limit:
                    return True
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        pass  # a damaged file is reported by whoever reads it
    return False


def _rows(path: Path) -> int:
    try:
        return pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return 0  # likewise
