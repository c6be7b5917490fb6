"""Decompression bombs are found before anything is read whole; honest files of every kind pass."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile

import polars as pl
import pytest

from components.data import download, expansion
from components.data.errors import MissingSource, WrongHash
from components.data.expansion import ExpandsTooFar, check_expansion
from components.data.registry import materialise

TEXT = ("one line of text that says something new every time: %d\n" * 2000) % tuple(range(2000))


@pytest.fixture
def small(monkeypatch):
    """Limits at which a bomb is small enough for a test."""
    monkeypatch.setattr(expansion, "ALWAYS_FINE", 1 << 20)
    monkeypatch.setattr(expansion, "RATIO", 50)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused_and_a_text_passes(compress, small, tmp_path):
    (tmp_path / "bomb").write_bytes(compress(bytes(8 << 20)))
    (tmp_path / "text").write_bytes(compress(TEXT.encode()))
    with pytest.raises(ExpandsTooFar, match=r"the file \(\d+ bytes\) grows to more than \d+ bytes"):
        check_expansion(tmp_path / "bomb", "the file")
    check_expansion(tmp_path / "text", "the file")


def test_a_bomb_is_left_long_before_its_end(small, tmp_path, monkeypatch):
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(40 << 20), 1))
    read = []
    opened = gzip.open

    def counting(path, mode):
        stream = opened(path, mode)
        whole = stream.read
        stream.read = lambda size: (read.append(size), whole(size))[1]
        return stream

    monkeypatch.setattr(expansion, "_OPENERS", ((b"\x1f\x8b", counting),))
    monkeypatch.setattr(expansion, "RATIO", 1)
    with pytest.raises(ExpandsTooFar):
        check_expansion(tmp_path / "bomb", "the file")
    assert sum(read) <= 3 << 20


def test_a_footer_that_promises_too_many_rows_is_refused(tmp_path, monkeypatch):
    pl.DataFrame({"x": [0] * 1000}).write_parquet(tmp_path / "a.parquet")
    check_expansion(tmp_path / "a.parquet", "the file")
    monkeypatch.setattr(expansion, "LARGEST_ROWS", 999)
    with pytest.raises(ExpandsTooFar, match="promises 1000 rows, expected at most 999"):
        check_expansion(tmp_path / "a.parquet", "the file")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"PAR1", b"PAR1" * 4, b"plain text"])
def test_damaged_and_plain_files_are_left_to_whoever_reads_them(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    check_expansion(tmp_path / "file", "the file")


def bomb() -> bytes:
    """An archive of a repository as GitHub packs it, with a recording of 8 MiB of zeros."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("r/recordings/1_me_7.wav")
        member.size = 8 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    return packed.getvalue()


@pytest.mark.parametrize("pinned", [True, False])
def test_no_bomb_reaches_a_converter(pinned, declare, server, small, tmp_path, monkeypatch):
    server.files["/a.tar.gz"] = bomb()
    expected = hashlib.sha256(b"the publisher's file").hexdigest() if pinned else None
    files = {"a.tar.gz": {"urls": [f"{server.url}/a.tar.gz"], "sha256": expected}}
    source = {"kind": "origin", "files": files, "convert": "components.data.fsdd.from_archive"}
    monkeypatch.setattr("components.data.fsdd.from_archive.__code__", (lambda paths, directory: 1 / 0).__code__)
    declaration = declare(source, content="0" * 64)
    with pytest.raises(WrongHash if pinned else ExpandsTooFar):
        materialise("set", declaration, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_server_that_does_not_stop_sending_is_left(server, declare, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 3 << 20)
    server.files["/a.txt"] = bytes(4 << 20)
    files = {"a.txt": {"urls": [f"{server.url}/a.txt"], "sha256": None}}
    source = {"kind": "origin", "files": files, "convert": "components.data.texts.one_text"}
    with pytest.raises(MissingSource, match="sends more than 3145728 bytes"):
        materialise("set", declare(source, content="0" * 64), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
