"""Content hashes of stage outputs, equal to those in `dvc.lock`, without DVC."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_CHUNK = 1 << 20


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes, in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def directory_md5(directory: Path) -> str:
    """DVC's hash of a directory: the MD5 of its sorted list of file hashes and relative paths, with ".dir" behind.

    Symbolic links are followed like DVC follows them; empty folders do not count.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    entries = [{"md5": file_md5(path), "relpath": path.relative_to(directory).as_posix()} for path in files]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"
