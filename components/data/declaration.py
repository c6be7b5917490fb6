"""What `params/data.yaml` says about a data set: its tables, where they come from, how they are checked and split.

A data set has tables (Parquet files with a declared schema), editions (what the tables hold, pinned by a content
hash) and sources (places that serve one edition), which are tried in order. Two sources of one edition must give the
same content. This module carries facts only; it imports neither Polars nor a download library.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

SCALARS = (
    "boolean", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
    "string", "binary",
)  # fmt: skip

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A relative path whose parts begin with a letter or digit: no leading slash and no "..", so that no declaration can
# reach outside its folder.
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w' .,()-]*(?:/\w[\w' .,()-]*)*$")]
TableName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*\.parquet$")]
# Functions come from a closed package, so that a parameter file cannot name arbitrary code.
Function = Annotated[str, StringConstraints(pattern=r"^components\.data(?:\.[a-z_]\w*){2,}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
Shares = Annotated[dict[str, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_type(spelling: Any, where: str) -> None:
    if isinstance(spelling, str) and spelling.removesuffix("?") in SCALARS:
        return
    if isinstance(spelling, dict) and len(spelling) == 1:
        ((kind, inner),) = spelling.items()
        if kind == "list":
            return _check_type(inner, f"{where}.list")
        if kind == "array" and isinstance(inner, list) and len(inner) == 2 and isinstance(inner[1], int):
            return _check_type(inner[0], f"{where}.array")
        if kind == "struct" and isinstance(inner, dict) and inner:
            for field, field_type in inner.items():
                _check_type(field_type, f"{where}.{field}")
            return None
    raise ValueError(
        f"{where} has type {spelling!r}; expected one of {', '.join(SCALARS)} (with '?' where nulls are allowed), "
        "{list: type}, {array: [type, size]} or {struct: {field: type}}"
    )


class Table(_Declared):
    """The schema of one Parquet file.

    Attributes:
        rows: Number of rows, where it is fixed.
        columns: Type of each column by name, in order: a scalar name such as `int8` ("?" appended where nulls are
            allowed), `{list: type}`, `{array: [type, size]}` or `{struct: {field: type}}`.
    """

    rows: int | None = Field(default=None, ge=0)
    columns: dict[str, Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _types_are_known(self) -> Table:
        for column, spelling in self.columns.items():
            _check_type(spelling, column)
        return self


class FileSplits(_Declared):
    """Each split is a table of its own."""

    by: Literal["file"]
    files: dict[str, TableName] = Field(min_length=1)


class ColumnSplits(_Declared):
    """A column of the only table names the split of each row."""

    by: Literal["column"]
    column: str
    names: list[str] = Field(min_length=1)


class HashSplits(_Declared):
    """Rows of the only table go to a split by the hash of a column, so that adding rows moves none.

    Attributes:
        column: Column that identifies what must stay together (a group, a book, an item).
        until: Text at which the column's value is cut first, where its variants must stay together.
        shares: Share of each split, adding up to 1.
    """

    by: Literal["hash"]
    column: str
    until: str | None = None
    shares: Shares


class PositionSplits(_Declared):
    """One running text in one row is cut at character positions, in the order of `shares`."""

    by: Literal["position"]
    column: str
    shares: Shares


Splits = Annotated[FileSplits | ColumnSplits | HashSplits | PositionSplits, Field(discriminator="by")]


class Edition(_Declared):
    """What the tables hold.

    Attributes:
        says: In what this edition differs from others.
        content: Content hash of each table (see components.data.content); may be left out only where every source
            of the edition pins each of its files by SHA-256.
    """

    says: str
    content: dict[TableName, Sha256] = Field(default_factory=dict)


class _Source(_Declared):
    edition: str


class MirrorSource(_Source):
    """Files of a local mirror: `TESSERA_MIRROR/<data set>/<file>`.

    Attributes:
        files: SHA-256 of each file by name.
        convert: Function that makes the tables from the files; without one the files are the tables.
    """

    kind: Literal["mirror"]
    files: dict[FileName, Sha256] = Field(min_length=1)
    convert: Function | None = None


class RemoteFile(_Declared):
    """A file at its publisher: addresses tried in order, and its SHA-256 (None where the publisher repacks it)."""

    urls: list[Url] = Field(min_length=1)
    sha256: Sha256 | None


class OriginSource(_Source):
    """Files at the publisher's own address.

    Attributes:
        files: Remote file by the local name that `convert` knows it under.
        convert: Function that makes the tables from the files.
    """

    kind: Literal["origin"]
    files: dict[FileName, RemoteFile] = Field(min_length=1)
    convert: Function


class HubSource(_Source):
    """Files of a data set on the Hugging Face Hub at a fixed commit.

    Attributes:
        dataset: Hub id, `owner/name`.
        revision: Commit of the data set's repository.
        files: SHA-256 of each file by its path in the repository (None where it is not known).
        convert: Function that makes the tables from the files.
    """

    kind: Literal["hub"]
    dataset: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    files: dict[FileName, Sha256 | None] = Field(min_length=1)
    convert: Function


class PackageSource(_Source):
    """Python packages that ship the data.

    Attributes:
        packages: Distribution names, as `pip` knows them.
        function: Function that makes the tables from what the packages ship.
        parameters: Its keyword arguments.
    """

    kind: Literal["package"]
    packages: list[str] = Field(min_length=1)
    function: Function
    parameters: dict[str, Any] = Field(default_factory=dict)


class GeneratorSource(_Source):
    """A function that makes the data from its parameters alone."""

    kind: Literal["generator"]
    function: Function
    parameters: dict[str, Any] = Field(default_factory=dict)


Source = Annotated[
    MirrorSource | OriginSource | HubSource | PackageSource | GeneratorSource, Field(discriminator="kind")
]


class DataSet(_Declared):
    """One data set of `params/data.yaml`.

    Attributes:
        title: Name in words.
        licence: Licence as stated by the publisher, or that none is stated.
        attribution: Whom to credit, in the form the licence asks for.
        origin: Page of the publisher; None for generated data.
        citation: Publication to cite, where there is one.
        embedded: It needs neither mirror nor network.
        tables: Schema of each Parquet file by name.
        splits: How rows are divided; None where studies divide the data themselves.
        editions: What the tables hold, by name.
        sources: Places that serve an edition, in the order in which they are tried.
    """

    title: str
    licence: str
    attribution: str
    origin: Url | None = None
    citation: str | None = None
    embedded: bool = False
    tables: dict[TableName, Table] = Field(min_length=1)
    splits: Splits | None = None
    editions: dict[str, Edition] = Field(min_length=1)
    sources: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> DataSet:
        for name, edition in self.editions.items():
            if strangers := set(edition.content) - set(self.tables):
                raise ValueError(f"edition {name} has a content hash for {sorted(strangers)}, which are not tables")
        for source in self.sources:
            if source.edition not in self.editions:
                raise ValueError(
                    f"source {source.kind} serves edition {source.edition!r}; declared are {sorted(self.editions)}"
                )
            pinned = set(self.editions[source.edition].content) == set(self.tables)
            if not pinned and not _pins_its_files(source):
                raise ValueError(
                    f"source {source.kind} has files without sha256 and edition {source.edition!r} has no content "
                    "hash for every table; one of the two must pin the data"
                )
        if self.embedded != any(source.kind in ("package", "generator") for source in self.sources):
            raise ValueError("embedded must be true exactly where a source is a package or a generator")
        self._check_splits()
        return self

    def _check_splits(self) -> None:
        splits = self.splits
        if splits is None:
            return
        if isinstance(splits, FileSplits):
            if strangers := set(splits.files.values()) - set(self.tables):
                raise ValueError(f"splits name {sorted(strangers)}, which are not tables")
            return
        if len(self.tables) != 1:
            raise ValueError(f"splits by {splits.by} need exactly one table; use splits by file")
        (table,) = self.tables.values()
        if splits.column not in table.columns:
            raise ValueError(f"splits use column {splits.column!r}, which the table does not have")
        if isinstance(splits, HashSplits | PositionSplits) and abs(sum(splits.shares.values()) - 1) > 1e-9:
            raise ValueError(f"shares of the splits add up to {sum(splits.shares.values())}, not to 1")

    def functions(self) -> list[str]:
        """Return the functions that the sources name: code that the data depend on but nothing imports."""
        named = (getattr(source, "convert", None) or getattr(source, "function", None) for source in self.sources)
        return sorted({function for function in named if function})

    def modules(self) -> list[str]:
        """Return the modules of `functions`, for the code digest of the data stage."""
        return sorted({re.sub(r"\.\w+$", "", function) for function in self.functions()})


def _pins_its_files(source: Any) -> bool:
    if isinstance(source, MirrorSource):
        return True
    if isinstance(source, OriginSource):
        return all(file.sha256 for file in source.files.values())
    if isinstance(source, HubSource):
        return all(source.files.values())
    return False
