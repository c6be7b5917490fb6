"""Refuses writes of a stage outside its own directories.

Python's audit events see every file that Python code opens, renames or removes; while a guard is active, such an
event on a path inside the workspace but outside the allowed directories raises in the stage itself, at the line that
did it. Paths outside the workspace (a library's cache in the home directory, /tmp) are not the guard's business.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.errors import TesseraError

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING_EVENTS = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
)


class WroteOutside(TesseraError, PermissionError):
    """A stage tried to change a file outside its own directories."""


@dataclass(frozen=True)
class _Guard:
    root: str
    allowed: tuple[str, ...]
    stage: str


_active: _Guard | None = None
_installed = threading.Lock()
_hooked = False


def _audit(event: str, arguments: tuple) -> None:
    guard = _active
    if guard is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
            mode is None and isinstance(flags, int) and flags & WRITE_FLAGS
        )
        if writes:
            _check(guard, path)
    elif event in CHANGING_EVENTS:
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            _check(guard, path)
        if event == "os.symlink":
            _check(guard, arguments[1])


def _check(guard: _Guard, path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    full = os.path.realpath(os.fsdecode(path))
    inside = full == guard.root or full.startswith(guard.root + os.sep)
    if inside and not any(full == base or full.startswith(base + os.sep) for base in guard.allowed):
        if full.endswith(".pyc") or f"{os.sep}__pycache__" in full:
            return
        raise WroteOutside(
            f"WroteOutside: stage {guard.stage} tried to write {os.path.relpath(full, guard.root)}, which is outside "
            f"its own directory {os.path.relpath(guard.allowed[0], guard.root)}. Write into stage.output (results), "
            "stage.log (text) or stage.checkpoint instead."
        )


@contextmanager
def guarded(root: Path, allowed: list[Path], stage: str) -> Iterator[None]:
    """Allow changes inside `root` only below the `allowed` directories while the block runs.

    Raises:
        WroteOutside: From inside the block, at the offending call.
    """
    global _active, _hooked
    with _installed:
        if not _hooked:
            sys.addaudithook(_audit)
            _hooked = True
    _active = _Guard(os.path.realpath(root), tuple(os.path.realpath(path) for path in allowed), stage)
    try:
        yield
    finally:
        _active = None
