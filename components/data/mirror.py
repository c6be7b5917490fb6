"""A local mirror: a folder of ready files, `TESSERA_MIRROR/<data set>/<file>`.

A data set made of another one's files names them with that one's folder, `wikitext2/valid.txt`.
"""

from __future__ import annotations

from pathlib import Path

from components.data.declaration import MirrorSource
from components.data.errors import SourceUnavailable
from components.data.fetched import Fetched, checked_sha256


def missing(source: MirrorSource, name: str, mirror: Path | None) -> str | None:
    """Return why the mirror cannot serve a data set, or None when all its files are there (hashes unread)."""
    if mirror is None:
        return "TESSERA_MIRROR is not set"
    if not mirror.is_dir():
        return f"TESSERA_MIRROR is {mirror}, which is not a folder"
    absent = [file for file in source.files if not _path(mirror, name, file).is_file()]
    return f"{mirror} lacks {', '.join(str(_path(Path(), name, file)) for file in absent)}" if absent else None


def obtain(source: MirrorSource, name: str, mirror: Path | None) -> Fetched:
    """Return the mirror's files, checked but not copied.

    Raises:
        SourceUnavailable: There is no mirror, or it lacks a file.
        WrongHash, TruncatedParquet: A file is not the declared one.
    """
    if reason := missing(source, name, mirror):
        raise SourceUnavailable(reason)
    paths = {file: _path(mirror, name, file) for file in source.files}
    hashes = {
        file: checked_sha256(
            paths[file],
            expected,
            str(paths[file]),
            "Copy the file to the mirror again, or unset TESSERA_MIRROR to use the next source.",
        )
        for file, expected in source.files.items()
    }
    return Fetched(paths, {"files": hashes})


def _path(mirror: Path, name: str, file: str) -> Path:
    own = mirror / name / file
    return mirror / file if "/" in file and not own.is_file() else own
