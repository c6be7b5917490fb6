"""Files and directories that appear whole or not at all, also after a power cut.

Every write goes to a temporary sibling (same file system), is flushed to disk, renamed over its target, and the
directory that holds the name is flushed too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; it becomes `path` when the block ends without an error.

    Raises:
        OSError: The directory of `path` is missing, full or not writable.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}{PARTIAL}"
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically and durably."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def replace_directory(source: Path, target: Path) -> None:
    """Rename the finished directory `source` to `target`, replacing what was there.

    A reader sees the old directory, for an instant none, then the new one; never a mixture.

    Args:
        source: Complete directory on the same file system as `target`.
        target: Name it gets; an existing directory or file of this name is removed.
    """
    source, target = Path(source), Path(target)
    for folder, _, names in os.walk(source, topdown=False):
        for name in names:
            _flush(Path(folder, name))
        _flush(Path(folder))
    old = target.parent / f".{target.name}.{os.getpid()}.replaced"
    if os.path.lexists(target):
        os.replace(target, old)
    os.replace(source, target)
    _flush(target.parent)
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


def remove_partial(directory: Path) -> None:
    """Remove temporary siblings that killed writers left in `directory`, which nobody else may be writing to."""
    for leftover in directory.glob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
