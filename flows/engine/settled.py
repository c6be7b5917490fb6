"""Remembers that nothing was stale, so that asking again costs a walk over files instead of a graph.

What was found up to date stays so as long as no file it depends on changes its size, times or identity. The memory is
a hash over those of every file below the given roots; any difference, also a harmless one, sends the caller back to
DVC, which decides. It is a shortcut in one direction only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.training.atomic import write_bytes

_SKIPPED = frozenset({"__pycache__"})


class Settled:
    """What was found up to date in one workspace.

    Args:
        root: The workspace.
        path: File of the memory.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path

    def recall(self, question: str) -> dict[str, Any] | None:
        """Return what was recorded for a question, if no file changed since; None otherwise."""
        entry = self._read().get(question)
        if entry is None or entry["state"] != self._state(entry["roots"]):
            return None
        return entry["answer"]

    def record(self, question: str, roots: Iterable[str], answer: dict[str, Any]) -> None:
        """Record that the question's stages are up to date with the files below `roots` as they are now.

        Args:
            question: Which stages were asked for.
            roots: Files and folders, relative to the workspace, that the answer depends on.
            answer: What to return when it is asked again.
        """
        kept = sorted(set(roots))
        memory = self._read() | {question: {"roots": kept, "state": self._state(kept), "answer": answer}}
        write_bytes(self._path, json.dumps(memory).encode())

    def _read(self) -> dict[str, Any]:
        try:
            memory = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return memory if isinstance(memory, dict) else {}

    def _state(self, roots: Iterable[str]) -> str:
        total = hashlib.blake2b(digest_size=16)
        for root in roots:
            for line in _walk(str(self._root), root):
                total.update(line)
        return total.hexdigest()


def _walk(base: str, path: str) -> Iterable[bytes]:
    full = os.path.join(base, path)
    try:
        found = os.stat(full)
    except OSError:
        yield f"{path} missing\n".encode()
        return
    if not os.path.isdir(full):
        yield f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode()
        return
    yield f"{path}/\n".encode()
    with os.scandir(full) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        if name not in _SKIPPED and not name.startswith("."):
            inner = f"{path}/{name}"
            if is_folder:
                yield from _walk(base, inner)
            else:
                stat = os.stat(os.path.join(base, inner))
                yield f"{inner} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode()
