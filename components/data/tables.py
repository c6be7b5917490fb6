"""Reading a materialised data set: the tables of a directory such as `data/cifar10`, whole or by split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from components.data import parquet, splits
from components.data.errors import MissingTable, TruncatedParquet, UnknownColumn, UnknownSplit
from components.errors import did_you_mean

META = "meta.json"


def read(directory: Path, file: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a table.

    Args:
        directory: Directory of the data set.
        file: Name of the table, such as `train.parquet`.
        columns: Columns to read, in this order; all by default.

    Raises:
        MissingTable: The directory or the table is not there.
        TruncatedParquet: The table is not as long as `meta.json` says, or cannot be decoded.
        UnknownColumn: A column is not in the table.
    """
    path = directory / file
    if not path.is_file():
        present = sorted(found.name for found in directory.glob("*.parquet"))
        state = f"it holds {present}" if directory.is_dir() else "the directory does not exist"
        raise MissingTable(
            f"{path} does not exist ({state}).{did_you_mean(file, present)} "
            f"Obtain the data set with `dvc repro data-{directory.name}`."
        )
    expected = meta(directory).get("tables", {}).get(file)
    if expected and path.stat().st_size != expected["bytes"]:
        raise TruncatedParquet(
            f"{path} has {path.stat().st_size} bytes, expected {expected['bytes']} ({META}). "
            f"Obtain the data set again with `dvc repro --force data-{directory.name}`."
        )
    if columns is not None:
        held = parquet.column_names(path)
        for column in columns:
            if column not in held:
                raise UnknownColumn(f"{path} has no column {column!r}.{did_you_mean(column, held)} It has {held}.")
    return parquet.read(path, None if columns is None else list(columns))


def meta(directory: Path) -> dict[str, Any]:
    """Return the content of a data set's `meta.json`, or an empty mapping where there is none (a stand-in)."""
    path = directory / META
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_split(directory: Path, split: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read the rows of one split, as `meta.json` divides the data set.

    Args:
        directory: Directory of the data set.
        split: Name of the split, such as `train`.
        columns: Columns to read, in this order; all by default.

    Raises:
        UnknownSplit: The data set has no such split, or no `meta.json`.
        MissingTable, TruncatedParquet, UnknownColumn: As in `read`.
    """
    described = meta(directory)
    rule = described.get("splits") or {}
    names = _names(rule)
    if split not in names:
        raise UnknownSplit(
            f"{directory} has no split {split!r}.{did_you_mean(split, names)} It has {names or 'no declared splits'}; "
            "splits are declared in params/data.yaml."
        )
    if rule["by"] == "file":
        return read(directory, rule["files"][split], columns)
    (file,) = described["tables"]
    column = rule["column"]
    wanted = None if columns is None else list(dict.fromkeys([*columns, column]))
    frame = read(directory, file, wanted)
    if rule["by"] == "column":
        part = frame.filter(pl.col(column) == split)
    elif rule["by"] == "hash":
        assigned = splits.by_hash(_identifiers(frame[column], rule["until"]), rule["shares"], salt=described["name"])
        part = frame.filter(pl.Series(assigned, dtype=pl.String) == split)
    else:
        part = frame.with_columns(pl.Series(column, [splits.by_position(frame[column].item(), rule["shares"])[split]]))
    return part if columns is None else part.select(columns)


def split_names(directory: Path) -> list[str]:
    """Return the names of a data set's splits, in the order of its declaration."""
    return _names(meta(directory).get("splits") or {})


def _names(rule: Mapping[str, Any]) -> list[str]:
    return list(rule.get("files") or rule.get("names") or rule.get("shares") or [])


def _identifiers(values: pl.Series, until: str | None) -> list[str]:
    texts = ["" if value is None else str(value) for value in values]
    return texts if until is None else [text.split(until, 1)[0] for text in texts]
