"""What can go wrong between a data set's declaration and its Parquet files; every message says how to fix it."""

from __future__ import annotations

from components.errors import TesseraError


class DataError(TesseraError):
    """Root of the errors about data sets."""


class DeclarationError(DataError):
    """`params/data.yaml` is not valid YAML or does not describe data sets."""


class UnknownDataSet(DataError):
    """A name that `params/data.yaml` does not declare."""


class SourceUnavailable(DataError):
    """One source cannot serve the data set now (no mirror, no network, no package); the next source is tried."""


class MissingSource(DataError):
    """No source of a data set could serve it; the message lists every source with its reason."""


class WrongHash(DataError):
    """A file that was fetched is whole but not the file that was declared."""


class TruncatedParquet(DataError):
    """A Parquet file that ends before its footer, or whose pages cannot be read."""


class ConversionFailed(DataError):
    """A source's files could not be turned into the declared tables."""


class WrongContent(DataError):
    """The tables are well-formed but do not hold the declared content."""


class WrongTables(DataError):
    """A source served other tables than the declared ones."""


class WrongSchema(DataError):
    """The columns, types or row count of a table are not the declared ones."""


class MissingColumn(WrongSchema):
    """A declared column is missing, or a column is there that was not declared."""


class WrongType(WrongSchema):
    """A column has another type than declared, or nulls where none are allowed."""


class WrongRows(WrongSchema):
    """A table has another number of rows than declared."""


class MissingTable(DataError):
    """A data set's directory lacks the table that was asked for."""


class UnknownColumn(DataError):
    """A column that the table does not have was asked for."""


class UnknownSplit(DataError):
    """A split that the data set does not have was asked for."""
