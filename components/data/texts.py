"""Text files to tables: one running text, texts that are splits, and a shelf of books."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from components.data import parquet

# The files that hold a split in the publishers' various spellings.
_SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}


def one_text(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `text.parquet` with the only file as one row, column `text`, characters unchanged."""
    (path,) = paths.values()
    parquet.write(pl.DataFrame({"text": [_read(path)]}), directory / "text.parquet")


def text_per_split(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `text.parquet` with one row per file, columns `split` (from the file's name) and `text`."""
    texts = {_SPLITS[Path(name).stem]: _read(path) for name, path in paths.items()}
    _write_splits(texts, directory)


def wikitext_from_hub(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `text.parquet` from the hub's Parquet files, which hold one line per row and blank lines as empty rows.

    In the text files a blank line is a space and a line break.
    """
    texts = {}
    for name, path in paths.items():
        lines = parquet.read(path)["text"].to_list()
        texts[_SPLITS[Path(name).name.split("-")[0]]] = "".join(line or " \n" for line in lines)
    _write_splits(texts, directory)


def books(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `books.parquet` from Markdown files named `<author>/<title>.md`, ordered by author and title.

    Texts are unchanged except for a leading byte order mark and Windows line ends.
    """
    rows = []
    for number, name in enumerate(sorted(paths)):
        author, title = re.fullmatch(r"([^/]+)/([^/]+)\.md", name).groups()
        text = _read(paths[name]).removeprefix("\ufeff").replace("\r\n", "\n")
        rows.append((number, title, author, text))
    schema = {"book": pl.Int16, "title": pl.String, "author": pl.String, "text": pl.String}
    parquet.write(pl.DataFrame(rows, schema=schema, orient="row"), directory / "books.parquet")


def _read(path: Path) -> str:
    # Not Path.read_text: it would translate line ends.
    return path.read_bytes().decode("utf-8")


def _write_splits(texts: Mapping[str, str], directory: Path) -> None:
    names = sorted(texts)
    frame = pl.DataFrame({"split": names, "text": [texts[name] for name in names]})
    parquet.write(frame, directory / "text.parquet")
