"""Materialising a data set: sources in order, checks, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import polars as pl
import pytest

from components.data import parquet, registry
from components.data.content import content_sha256
from components.data.errors import (
    ConversionFailed,
    DeclarationError,
    MissingColumn,
    MissingSource,
    TruncatedParquet,
    WrongContent,
    WrongHash,
    WrongRows,
    WrongTables,
    WrongType,
)
from components.data.fetched import file_sha256
from components.data.registry import materialise
from components.metrics.tables import write_parquet

ONE_TEXT = "components.data.texts.one_text"
TEXT = "To be, or not to be\nñandú \r\n"
HASH = hashlib.sha256(TEXT.encode()).hexdigest()
CONTENT = content_sha256(pl.DataFrame({"text": [TEXT]}))
FROM_MIRROR = {"kind": "mirror", "files": {"a.txt": HASH}, "convert": ONE_TEXT}


def from_origin(url: str) -> dict:
    return {"kind": "origin", "files": {"a.txt": {"urls": [url], "sha256": HASH}}, "convert": ONE_TEXT}


def put(mirror: Path, file: str, content: bytes) -> None:
    (mirror / "set").mkdir(exist_ok=True)
    (mirror / "set" / file).write_bytes(content)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_first_source_that_can_serves_and_the_provenance_says_which(declare, mirror, server, tmp_path):
    put(mirror, "a.txt", TEXT.encode())
    provenance = materialise("set", declare(FROM_MIRROR, from_origin(server.url)), tmp_path / "out", mirror=mirror)
    assert server.requests == []
    assert parquet.read(tmp_path / "out/text.parquet").to_dicts() == [{"text": TEXT}]
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert "source" not in meta
    assert provenance.source == {"kind": "mirror", "convert": ONE_TEXT, "files": {"a.txt": HASH}}
    assert meta["licence"] == "CC0"
    assert meta["attribution"] == "nobody"
    assert meta["tables"]["text.parquet"] == {
        "rows": 1,
        "bytes": (tmp_path / "out/text.parquet").stat().st_size,
        "sha256": file_sha256(tmp_path / "out/text.parquet"),
        "content": CONTENT,
    }
    assert meta == {key: value for key, value in vars(provenance).items() if key != "source"}
    assert str(mirror) not in (tmp_path / "out/meta.json").read_text()


def test_without_a_mirror_the_next_source_gives_the_same_table(declare, mirror, server, tmp_path):
    put(mirror, "a.txt", TEXT.encode())
    server.files["/a.txt"] = TEXT.encode()
    declaration = declare(FROM_MIRROR, from_origin(f"{server.url}/a.txt"), content=CONTENT)
    materialise("set", declaration, tmp_path / "near", mirror=mirror)
    provenance = materialise("set", declaration, tmp_path / "far")
    assert provenance.source["files"] == {"a.txt": {"url": f"{server.url}/a.txt", "sha256": HASH}}
    assert (tmp_path / "far/text.parquet").read_bytes() == (tmp_path / "near/text.parquet").read_bytes()


def test_twice_gives_the_same_bytes(declare, mirror, tmp_path):
    put(mirror, "a.txt", TEXT.encode())
    for name in ("one", "two"):
        materialise("set", declare(FROM_MIRROR), tmp_path / name, mirror=str(mirror))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_parquet_files_of_a_mirror_are_written_anew_in_one_encoding(declare, mirror, tmp_path):
    # Written with other options than ours, and read-only as a mirror may be.
    path = mirror / "set" / "text.parquet"
    path.parent.mkdir()
    pl.DataFrame({"text": [TEXT]}).write_parquet(path, compression="snappy")
    path.chmod(0o444)
    source = {"kind": "mirror", "files": {"text.parquet": file_sha256(path)}}
    materialise("set", declare(source, content=CONTENT), tmp_path / "out", mirror=mirror)
    again = tmp_path / "again.parquet"
    write_parquet(pl.DataFrame({"text": [TEXT]}), again)
    assert (tmp_path / "out/text.parquet").read_bytes() == again.read_bytes()
    assert os.access(tmp_path / "out/text.parquet", os.W_OK)


def test_a_missing_source_lists_every_reason_and_how_to_fix_it(declare, tmp_path):
    package = {"kind": "package", "packages": ["no-such-package"], "function": "components.data.digits.read"}
    with pytest.raises(MissingSource) as caught:
        materialise(
            "set",
            declare(FROM_MIRROR, from_origin("http://127.0.0.1:9/a.txt"), package, content=CONTENT),
            tmp_path / "out",
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "data set 'set' could not be obtained from any of its sources:"
    assert lines[1] == "  mirror: TESSERA_MIRROR is not set"
    assert lines[2] == "  origin: 127.0.0.1 cannot be reached (Connection refused)"
    assert lines[3] == "  package: not installed: no-such-package"
    assert "set TESSERA_MIRROR to a folder that holds set/a.txt" in lines[4]
    assert "connect this machine to the network" in lines[4]
    assert "pip install no-such-package" in lines[4]
    assert tree(tmp_path / "out") == {}


def test_a_mirror_that_is_no_folder_or_lacks_the_file_is_a_reason(declare, mirror, tmp_path):
    with pytest.raises(MissingSource, match="nowhere, which is not a folder"):
        materialise("set", declare(FROM_MIRROR), tmp_path / "out", mirror=tmp_path / "nowhere")
    with pytest.raises(MissingSource, match=r"lacks set/a\.txt"):
        materialise("set", declare(FROM_MIRROR), tmp_path / "out", mirror=mirror)


def _wrong_hash(mirror, declare):
    put(mirror, "a.txt", b"other")
    return declare(FROM_MIRROR), WrongHash, rf"a.txt has SHA-256 \w+, expected {HASH}.*unset TESSERA_MIRROR"


def _truncated(mirror, declare):
    put(mirror, "text.parquet", b"")
    parquet.write(pl.DataFrame({"text": [TEXT]}), mirror / "set/text.parquet")
    whole = (mirror / "set/text.parquet").read_bytes()
    put(mirror, "text.parquet", whole[:-20])
    source = {"kind": "mirror", "files": {"text.parquet": hashlib.sha256(whole).hexdigest()}}
    return declare(source), TruncatedParquet, "text.parquet is a truncated Parquet file: its .* end before the footer"


def _table(mirror, declare, frame, columns, **fields):
    put(mirror, "text.parquet", b"")
    parquet.write(frame, mirror / "set/text.parquet")
    source = {"kind": "mirror", "files": {"text.parquet": file_sha256(mirror / "set/text.parquet")}}
    return declare(source, columns=columns, **fields)


def _missing_column(mirror, declare):
    declaration = _table(mirror, declare, pl.DataFrame({"text": ["a"]}), {"text": "string", "split": "string"})
    return declaration, MissingColumn, r"data set 'set', text.parquet from source mirror lacks the columns \['split'\]"


def _wrong_type(mirror, declare):
    declaration = _table(mirror, declare, pl.DataFrame({"text": [1]}), {"text": "string"})
    return declaration, WrongType, "column 'text' is int64, expected string"


def _wrong_rows(mirror, declare):
    tables = {"text.parquet": {"rows": 3, "columns": {"text": "string"}}}
    return (
        _table(mirror, declare, pl.DataFrame({"text": ["a"]}), {}, tables=tables),
        WrongRows,
        "has 1 rows, expected 3",
    )


def _wrong_content(mirror, declare):
    declaration = _table(mirror, declare, pl.DataFrame({"text": ["a"]}), {"text": "string"}, content=CONTENT)
    return declaration, WrongContent, rf"has content hash \w+, expected {CONTENT} for edition 'e'"


def _wrong_tables(mirror, declare):
    put(mirror, "a.txt", TEXT.encode())
    return declare(FROM_MIRROR, table="texts.parquet"), WrongTables, r"served the tables \['text.parquet'\], expected"


def _not_text(mirror, declare):
    put(mirror, "a.txt", b"\xff\xfe")
    source = FROM_MIRROR | {"files": {"a.txt": hashlib.sha256(b"\xff\xfe").hexdigest()}}
    return declare(source), ConversionFailed, r"texts.one_text could not read the files of source mirror \(a.txt\)"


def _no_function(mirror, declare):
    put(mirror, "a.txt", TEXT.encode())
    return declare(FROM_MIRROR | {"convert": "components.data.texts.nothing"}), DeclarationError, "does not exist"


def _wrong_parameters(mirror, declare):
    source = {"kind": "generator", "function": "components.data.shapes.generate", "parameters": {"size": 3}}
    return declare(source, content=CONTENT), DeclarationError, r"calls components.data.shapes.generate with \['size'\]"


@pytest.mark.parametrize(
    "broken",
    [
        _wrong_hash,
        _truncated,
        _missing_column,
        _wrong_type,
        _wrong_rows,
        _wrong_content,
        _wrong_tables,
        _not_text,
        _no_function,
        _wrong_parameters,
    ],
)
def test_a_broken_source_is_an_error_and_the_previous_version_stays(declare, mirror, tmp_path, broken):
    out = tmp_path / "out"
    put(mirror, "a.txt", TEXT.encode())
    materialise("set", declare(FROM_MIRROR), out, mirror=mirror)
    before = tree(out)
    declaration, error, message = broken(mirror, declare)
    with pytest.raises(error, match=message):
        materialise("set", declaration, out, mirror=mirror)
    assert tree(out) == before
    with pytest.raises(error):
        materialise("set", declaration, tmp_path / "fresh", mirror=mirror)
    assert list((tmp_path / "fresh").iterdir()) == []


def test_a_crash_while_writing_leaves_the_previous_version(declare, mirror, tmp_path, monkeypatch):
    out = tmp_path / "out"
    put(mirror, "a.txt", TEXT.encode())
    materialise("set", declare(FROM_MIRROR), out, mirror=mirror)
    before = tree(out)

    def full(frame, path):
        path.write_bytes(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write", full)
    with pytest.raises(ConversionFailed, match="No space left"):
        materialise("set", declare(FROM_MIRROR), out, mirror=mirror)
    assert tree(out) == before


def test_what_a_killed_run_left_behind_is_cleared(declare, mirror, tmp_path):
    put(mirror, "a.txt", TEXT.encode())
    leftover = tmp_path / "out" / ".partial-killed"
    leftover.mkdir(parents=True)
    (leftover / "text.parquet").write_bytes(b"PAR1")
    materialise("set", declare(FROM_MIRROR), tmp_path / "out", mirror=mirror)
    assert sorted(tree(tmp_path / "out")) == ["meta.json", "text.parquet"]


def test_meta_is_written_last(declare, mirror, tmp_path, monkeypatch):
    put(mirror, "a.txt", TEXT.encode())
    moved = []
    replace = os.replace
    monkeypatch.setattr(registry.os, "replace", lambda old, new: (moved.append(Path(new).name), replace(old, new)))
    materialise("set", declare(FROM_MIRROR), tmp_path / "out", mirror=mirror)
    assert moved == ["text.parquet", "meta.json"]


def test_embedded_data_sets_materialise_without_mirror_and_network(tmp_path, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("an embedded data set asked for the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    root = Path(__file__).parents[3]
    data_sets = registry.load_declarations(root / "params/data.yaml")
    # The content hashes in params/data.yaml make each of these a check of every value.
    for name in [name for name, data_set in data_sets.items() if data_set.embedded]:
        if name == "all-minilm-l6-v2":  # its package is optional: not in the lock
            continue
        assert materialise(name, data_sets[name], tmp_path / name).source["kind"] in ("package", "generator")
