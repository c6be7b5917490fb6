"""Python source text as it lies in installed packages; nothing is downloaded.

The packages' versions are locked, and only files that every platform's wheel holds are read, so that every machine gets
the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from components.data import parquet
from components.data.errors import DataError

_SCHEMA = {"package": pl.String, "module": pl.String, "text": pl.String}
_SKIPPED_FOLDERS = frozenset({"tests", "test", "testing", "_vendor", "vendor"})
_LONGEST = 100_000  # bytes; longer files are tables of data more than code
_SHORTEST = 200


def collect(directory: Path, *, packages: Sequence[str]) -> None:
    """Write `sources.parquet`: one row per module, columns `package`, `module` (dotted) and `text`, by module.

    Tests, vendored packages, files below 200 bytes and above 100 kB are left out.

    Args:
        directory: Where to write.
        packages: Importable top-level packages.

    Raises:
        DataError: A package is not installed.
    """
    rows = []
    for package in packages:
        # Found without importing the package.
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"The package {package!r} is not installed; install infra/requirements.lock.")
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder.parent)
            size = path.stat().st_size
            if _SHORTEST <= size <= _LONGEST and not _SKIPPED_FOLDERS.intersection(inside.parts):
                module = ".".join(inside.with_suffix("").parts)
                # Not Path.read_text: it would translate line ends.
                rows.append((package, module, path.read_bytes().decode("utf-8")))
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row").sort("module")
    parquet.write(frame, directory / "sources.parquet")
