"""Files that a source has put in reach, checked against their declared hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data.errors import TruncatedParquet, WrongHash


@dataclass(frozen=True)
class Fetched:
    """What a source served.

    Attributes:
        paths: Path of each file by the name it is declared under.
        record: What the provenance says about it: addresses and SHA-256 of the files, never a local path.
    """

    paths: dict[str, Path]
    record: dict[str, Any] = field(default_factory=dict)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checked_sha256(path: Path, expected: str | None, where: str, fix: str) -> str:
    """Return the SHA-256 of a file after comparing it with the declared one (None: nothing to compare).

    Raises:
        TruncatedParquet: It differs because a Parquet file was cut short.
        WrongHash: It differs.
    """
    found = file_sha256(path)
    if expected is None or found == expected:
        return found
    if path.suffix == ".parquet" and not _ends_with_footer(path):
        raise TruncatedParquet(
            f"{where} is a truncated Parquet file: its {path.stat().st_size} bytes end before the footer. "
            f"Expected the file with SHA-256 {expected}. {fix}"
        )
    raise WrongHash(f"{where} has SHA-256 {found}, expected {expected} (params/data.yaml). {fix}")


def _ends_with_footer(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - 4))
        return stream.read() == b"PAR1"
