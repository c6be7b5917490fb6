"""Text files to tables."""

from __future__ import annotations

import polars as pl
import pytest

from components.data import parquet, texts


def test_a_text_keeps_every_character_and_line_end(tmp_path):
    content = "a\r\nb\rc\n\u2028ñ\ufeff"
    (tmp_path / "a.txt").write_bytes(content.encode())
    texts.one_text({"a.txt": tmp_path / "a.txt"}, tmp_path)
    assert parquet.read(tmp_path / "text.parquet")["text"].to_list() == [content]


def test_splits_are_named_alike_whoever_published_them(tmp_path):
    lines = {"test": " \n = A = \n", "valid": " \n = B = \nb \n"}
    for name, content in lines.items():
        (tmp_path / f"{name}.txt").write_text(content)
        rows = [line if line.strip() else "" for line in content.splitlines(keepends=True)]
        split = {"valid": "validation"}.get(name, name)
        pl.DataFrame({"text": rows}).write_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    texts.text_per_split({f"{name}.txt": tmp_path / f"{name}.txt" for name in lines}, tmp_path)
    published = (tmp_path / "text.parquet").read_bytes()
    assert parquet.read(tmp_path / "text.parquet")["split"].to_list() == ["test", "validation"]
    paths = {f"w/{s}-00000-of-00001.parquet": tmp_path / f"{s}-00000-of-00001.parquet" for s in ("validation", "test")}
    texts.wikitext_from_hub(paths, tmp_path)
    assert (tmp_path / "text.parquet").read_bytes() == published


def test_books_are_ordered_and_lose_only_mark_and_windows_line_ends(tmp_path):
    files = {"B. Author/Two.md": "\ufeff# Two\r\n\r\nText\ufeff", "A/One's own.md": "# One\n"}
    paths = {}
    for number, (name, content) in enumerate(files.items()):
        paths[name] = tmp_path / str(number)
        paths[name].write_bytes(content.encode())
    texts.books(paths, tmp_path)
    rows = parquet.read(tmp_path / "books.parquet").rows()
    assert rows == [(0, "One's own", "A", "# One\n"), (1, "Two", "B. Author", "# Two\n\nText\ufeff")]


def test_a_file_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        texts.one_text({"a.txt": tmp_path / "a.txt"}, tmp_path)
