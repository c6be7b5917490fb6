"""Parquet files of data sets: written so that equal tables give equal bytes, checked against a declared schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from components.data.declaration import Table
from components.data.errors import MissingColumn, TruncatedParquet, WrongRows, WrongType

_SCALARS = {
    "boolean": pl.Boolean(),
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "uint8": pl.UInt8(),
    "uint16": pl.UInt16(),
    "uint32": pl.UInt32(),
    "uint64": pl.UInt64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "binary": pl.Binary(),
}
_NAMES = {dtype: name for name, dtype in _SCALARS.items()}
# Bytes of image columns reach megabytes per hundred rows; groups of this size let a reader skip and parallelise.
_ROW_GROUP = 1 << 16


def polars_type(declared: Any) -> pl.DataType:
    """Return the Polars type of a declared column type, such as `int8`, `{list: string}` or `{array: [uint8, 64]}`."""
    if isinstance(declared, str):
        return _SCALARS[declared.removesuffix("?")]
    ((kind, inner),) = declared.items()
    if kind == "list":
        return pl.List(polars_type(inner))
    if kind == "array":
        return pl.Array(polars_type(inner[0]), inner[1])
    return pl.Struct({field: polars_type(field_type) for field, field_type in inner.items()})


def schema(table: Table) -> dict[str, pl.DataType]:
    """Return the Polars schema of a declared table."""
    return {column: polars_type(declared) for column, declared in table.columns.items()}


def spelling(dtype: pl.DataType) -> Any:
    """Return how a Polars type is spelled in a declaration; a type no declaration can have is spelled as Polars does.

    The inverse of `polars_type`, up to the mark for nulls.
    """
    if isinstance(dtype, pl.List):
        return {"list": spelling(dtype.inner)}
    if isinstance(dtype, pl.Array):
        return {"array": [spelling(dtype.inner), dtype.size]}
    if isinstance(dtype, pl.Struct):
        return {"struct": {field.name: spelling(field.dtype) for field in dtype.fields}}
    return _NAMES.get(dtype, str(dtype))


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a table so that equal tables give equal bytes (fixed codec, level and row groups, no statistics)."""
    frame.rechunk().write_parquet(
        path, compression="zstd", compression_level=6, row_group_size=_ROW_GROUP, statistics=False
    )


def read(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a Parquet file.

    Raises:
        TruncatedParquet: The file ends before its footer or cannot be decoded.
    """
    try:
        return pl.read_parquet(path, columns=columns, glob=False)
    except (pl.exceptions.ComputeError, OSError) as error:
        size = path.stat().st_size
        raise TruncatedParquet(
            f"{path} ({size} bytes) is not a whole Parquet file: {error}. Expected a file that ends with its footer. "
            "Delete it and obtain it again."
        ) from error


def column_names(path: Path) -> list[str]:
    """Return the columns of a Parquet file from its footer.

    Raises:
        TruncatedParquet: The file ends before its footer.
    """
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.ComputeError, OSError) as error:
        raise TruncatedParquet(
            f"{path} ({path.stat().st_size} bytes) is not a whole Parquet file: {error}. "
            "Expected a file that ends with its footer. Delete it and obtain it again."
        ) from error


def check(frame: pl.DataFrame, table: Table, where: str) -> None:
    """Check a table against its declaration.

    Args:
        frame: The table.
        table: Its declaration.
        where: What to call the table in a message.

    Raises:
        MissingColumn: A declared column is missing, one is there that was not declared, or their order differs.
        WrongType: A column has another type, or nulls that are not allowed.
        WrongRows: The number of rows differs.
    """
    fix = "Correct the source, or its declaration in params/data.yaml if the data set has changed on purpose."
    expected = list(table.columns)
    if frame.columns != expected:
        missing = [column for column in expected if column not in frame.columns]
        strange = [column for column in frame.columns if column not in expected]
        what = (
            f"lacks the columns {missing}" if missing else f"has the undeclared columns {strange}" if strange else
            "has its columns in another order"
        )  # fmt: skip
        raise MissingColumn(f"{where} {what}; found {frame.columns}, expected {expected}. {fix}")
    for column, declared in table.columns.items():
        found = frame.schema[column]
        if found != polars_type(declared):
            raise WrongType(f"{where}, column {column!r} is {spelling(found)}, expected {declared}. {fix}")
        nullable = isinstance(declared, str) and declared.endswith("?")
        nulls = frame[column].null_count()
        if nulls and not nullable:
            raise WrongType(f"{where}, column {column!r} has {nulls} nulls, expected none ({declared}). {fix}")
    if table.rows is not None and frame.height != table.rows:
        raise WrongRows(f"{where} has {frame.height} rows, expected {table.rows}. {fix}")
