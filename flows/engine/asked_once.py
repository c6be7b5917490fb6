"""What DVC asks again and again while it records a stage, asked once: hashes of inputs, and what git tracks.

DVC looks a stage up in its run cache and records it by hashing every input up to eight times, and reads git's whole
index to see that an output is not tracked; for a stage of milliseconds these are most of what recording it costs.
"""

from __future__ import annotations

import bisect
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_ASKED = ("get_hash", "_build")


@contextmanager
def hashed_once(dependencies: Iterable[Any]) -> Iterator[None]:
    """Let each of DVC's dependencies of a stage be hashed once inside the block, however often it is asked.

    A dependency must not change inside the block, as it must not while a stage is recorded.
    """
    changed = list(dependencies)
    for dependency in changed:
        for name in _ASKED:
            setattr(dependency, name, _remembered(getattr(dependency, name)))
    try:
        yield
    finally:
        for dependency in changed:
            for name in _ASKED:
                delattr(dependency, name)


def _remembered(function: Any) -> Any:
    """Return a method that remembers its answer for each hash function, and for hashing with and without the cache."""
    known: dict[Any, Any] = {}

    @functools.wraps(function)
    def once(*args: Any, **kwargs: Any) -> Any:
        key = (kwargs.get("dry_run", False), *args[3:])  # behind cache, path and file system
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return once


class TrackedFiles:
    """What git's index holds, read again only when the index is another one.

    Args:
        git: A repository of dulwich.
        root: Its top folder.
    """

    def __init__(self, git: Any, root: str) -> None:
        self._git, self._root = git, root
        self._stamp: tuple[int, int, int] | None = None
        self._paths: list[bytes] = []

    def is_tracked(self, path: str) -> bool:
        """Tell whether git tracks a file, or something in a folder."""
        self._refresh()
        relative = os.path.relpath(path, self._root).replace(os.sep, "/").encode()
        return self._next(relative) == relative or self._next(relative + b"/").startswith(relative + b"/")

    def _next(self, path: bytes) -> bytes:
        place = bisect.bisect_left(self._paths, path)
        return self._paths[place] if place < len(self._paths) else b""

    def _refresh(self) -> None:
        try:
            status = os.stat(self._git.index_path())
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            self._stamp, self._paths = None, []
            return
        if stamp != self._stamp:
            self._stamp, self._paths = stamp, sorted(self._git.open_index())
