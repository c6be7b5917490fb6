"""Writing, reading and checking Parquet files."""

from __future__ import annotations

import polars as pl
import pytest

from components.data import parquet
from components.data.declaration import Table
from components.data.errors import MissingColumn, TruncatedParquet, WrongRows, WrongType

COLUMNS = {
    "id": "int32",
    "name": "string?",
    "vector": {"array": ["uint8", 2]},
    "objects": {"list": {"struct": {"x": "float32", "tags": {"list": "string"}}}},
}
TABLE = Table(rows=2, columns=COLUMNS)


def frame() -> pl.DataFrame:
    rows = [(1, "a", [1, 2], [{"x": 0.5, "tags": ["t"]}]), (2, None, [3, 4], [])]
    return pl.DataFrame(rows, schema=parquet.schema(TABLE), orient="row")


def test_a_declared_type_and_its_spelling_are_inverse():
    for declared in COLUMNS.values():
        spelled = parquet.spelling(parquet.polars_type(declared))
        assert spelled == (declared.removesuffix("?") if isinstance(declared, str) else declared)


def test_a_table_as_declared_passes():
    parquet.check(frame(), TABLE, "t")


def test_equal_tables_give_equal_bytes_whatever_their_chunks(tmp_path):
    parquet.write(frame(), tmp_path / "a.parquet")
    parquet.write(pl.concat([frame()[:1], frame()[1:]], rechunk=False), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert parquet.read(tmp_path / "a.parquet").equals(frame())


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (lambda f: f.drop("vector"), MissingColumn, r"t lacks the columns \['vector'\]"),
        (lambda f: f.with_columns(extra=1), MissingColumn, r"t has the undeclared columns \['extra'\]"),
        (lambda f: f.select(f.columns[::-1]), MissingColumn, "in another order"),
        (lambda f: f.cast({"id": pl.Int64}), WrongType, "column 'id' is int64, expected int32"),
        (lambda f: f.with_columns(id=pl.lit(None, pl.Int32)), WrongType, "column 'id' has 2 nulls, expected none"),
        (lambda f: f[:1], WrongRows, "t has 1 rows, expected 2"),
    ],
)
def test_a_table_that_differs_from_its_declaration_is_refused(changed, error, message):
    with pytest.raises(error, match=message) as caught:
        parquet.check(changed(frame()), TABLE, "t")
    assert "params/data.yaml" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 40, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "a.parquet"
    parquet.write(frame(), path)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (parquet.read, parquet.column_names):
        with pytest.raises(TruncatedParquet, match="is not a whole Parquet file"):
            read(path)


def test_a_file_with_damaged_pages_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write(pl.DataFrame({"a": range(5000)}), path)
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(TruncatedParquet, match="Delete it and obtain it again"):
        parquet.read(path)
