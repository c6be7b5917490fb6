"""Reading a materialised data set, whole and by split."""

from __future__ import annotations

import polars as pl
import pytest

from components.data import parquet, tables
from components.data.content import content_sha256
from components.data.errors import MissingTable, TruncatedParquet, UnknownColumn, UnknownSplit
from components.data.fetched import file_sha256
from components.data.registry import materialise


@pytest.fixture
def make(declare, mirror, tmp_path):
    """Materialise a frame with given splits and return its directory."""

    def make(frame: pl.DataFrame, splits: dict | None):
        (mirror / "set").mkdir(exist_ok=True)
        path = mirror / "set/table.parquet"
        parquet.write(frame, path)
        source = {"kind": "mirror", "files": {"table.parquet": file_sha256(path)}}
        columns = {name: parquet.spelling(dtype) for name, dtype in frame.schema.items()}
        columns = {name: f"{spelled}?" if frame[name].null_count() else spelled for name, spelled in columns.items()}
        declaration = declare(
            source, columns=columns, table="table.parquet", splits=splits, content=content_sha256(frame)
        )
        materialise("set", declaration, tmp_path / "set", mirror=mirror)
        return tmp_path / "set"

    return make


FRAME = pl.DataFrame({"id": ["a", "b", "c", "d"], "split": ["train", "test", "train", "test"], "x": [1, 2, 3, 4]})
BY_COLUMN = {"by": "column", "column": "split", "names": ["train", "test"]}


def test_columns_come_in_the_order_asked_for(make):
    directory = make(FRAME, None)
    assert tables.read(directory, "table.parquet").equals(FRAME)
    assert tables.read(directory, "table.parquet", ["x", "id"]).equals(FRAME.select("x", "id"))


def test_a_missing_table_says_what_is_there_and_how_to_get_it(make, tmp_path):
    directory = make(FRAME, None)
    with pytest.raises(MissingTable, match=r"Did you mean 'table.parquet'\? .*`dvc repro data-set`"):
        tables.read(directory, "tables.parquet")
    with pytest.raises(MissingTable, match="the directory does not exist"):
        tables.read(tmp_path / "nothing", "table.parquet")


def test_a_table_shorter_than_recorded_is_refused(make):
    directory = make(FRAME, None)
    path = directory / "table.parquet"
    parquet.write(FRAME[:1], path)
    with pytest.raises(TruncatedParquet, match=r"bytes, expected \d+ \(meta.json\)"):
        tables.read(directory, "table.parquet")


def test_an_unknown_column_suggests_the_nearest(make):
    with pytest.raises(UnknownColumn, match=r"has no column 'splits'. Did you mean 'split'\?"):
        tables.read(make(FRAME, None), "table.parquet", ["splits"])


def test_a_table_without_meta_can_be_read_but_has_no_splits(tmp_path):
    parquet.write(FRAME, tmp_path / "table.parquet")
    assert tables.read(tmp_path, "table.parquet").equals(FRAME)
    with pytest.raises(UnknownSplit, match="It has no declared splits"):
        tables.read_split(tmp_path, "train")


def test_split_by_column(make):
    directory = make(FRAME, BY_COLUMN)
    assert tables.split_names(directory) == ["train", "test"]
    assert tables.read_split(directory, "test").equals(FRAME[1::2])
    assert tables.read_split(directory, "test", ["x"])["x"].to_list() == [2, 4]


def test_an_unknown_split_suggests_the_nearest(make):
    with pytest.raises(UnknownSplit, match=r"has no split 'tests'. Did you mean 'test'\?"):
        tables.read_split(make(FRAME, BY_COLUMN), "tests")


def test_splits_by_hash_are_disjoint_complete_and_keep_variants_together(make):
    names = [f"emoji {number}" for number in range(200)]
    frame = pl.DataFrame({"name": [*names, *(f"{name}: dark" for name in names), None]}).with_row_index("row")
    directory = make(frame, {"by": "hash", "column": "name", "until": ":", "shares": {"train": 0.6, "test": 0.4}})
    parts = {split: tables.read_split(directory, split) for split in tables.split_names(directory)}
    assert sorted(parts["train"]["row"].to_list() + parts["test"]["row"].to_list()) == frame["row"].to_list()
    bases = {split: {(name or "").split(":")[0] for name in part["name"]} for split, part in parts.items()}
    assert not bases["train"] & bases["test"]
    assert min(len(part) for part in parts.values()) > 0.3 * len(frame)
    assert tables.read_split(directory, "test", ["row"]).columns == ["row"]


def test_split_by_position_cuts_the_text(make):
    directory = make(
        pl.DataFrame({"text": ["abcdefghij"]}),
        {"by": "position", "column": "text", "shares": {"train": 0.8, "validation": 0.1, "test": 0.1}},
    )
    parts = [tables.read_split(directory, split)["text"].item() for split in tables.split_names(directory)]
    assert parts == ["abcdefgh", "i", "j"]


def test_split_by_file_reads_that_table(make, tmp_path):
    directory = make(FRAME, {"by": "file", "files": {"all": "table.parquet"}})
    assert tables.read_split(directory, "all", ["id"])["id"].to_list() == ["a", "b", "c", "d"]
