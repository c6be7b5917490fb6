"""`python -m failing_disk UNDISTURBED KIND` in a finished workspace: a stage's commit, with one operation that fails.

A commit here is everything from the moment in which the stage's function has returned to the moment in which its lock
is on disk: the output is flushed and renamed, its record written, DVC's cache and run cache filled, the lock replaced.
Its k-th write, rename, link or fsync fails, for k = 0, 1, 2, ... until a commit ends untouched; with ENOSPC and EIO in
turn. After each the invariants are asked, the run is repeated without the fault, and they are asked again.

The operations are caught where Python makes them. What native code writes by itself (SQLite: DVC's index of hashes,
MLflow's database) is not; the small file system of `full_disk` fails there, too.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import here
import invariants

import flows.stage
from flows.engine.graph import DvcGraph

ERRORS = (errno.ENOSPC, errno.EIO)
LIMIT = 400


class FailingDisk:
    """Lets the k-th operation on files below a folder fail while it is armed.

    Args:
        root: The folder.
        number: Which operation fails, from 0.
        error: Its errno.
    """

    def __init__(self, root: Path, number: int, error: int) -> None:
        self._root = os.path.realpath(root)
        self._number = number
        self._error = error
        self.armed = False
        self.count = 0
        self.what = ""

    def meet(self, what: str, path: Any) -> None:
        """Count an operation, and fail if it is the one."""
        if not self.armed or not self._is_inside(path):
            return
        self.count += 1
        if self.count == self._number + 1:
            self.what = f"{what} {os.path.relpath(self._path(path), self._root)}"
            raise OSError(self._error, os.strerror(self._error), str(path))

    def _path(self, path: Any) -> str:
        if isinstance(path, int):
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/self/fd/{path}")
            return ""
        return os.path.realpath(os.fsdecode(path))

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, int | str | bytes | os.PathLike) and self._path(path).startswith(self._root + os.sep)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between Python and the system."""
        with contextlib.ExitStack() as stack:
            for name, where in {"fsync": 0, "write": 0, "replace": 1, "rename": 1, "link": 1, "sendfile": 0}.items():
                stack.enter_context(mock.patch.object(os, name, self._counted(getattr(os, name), name, where)))
            for module in (builtins, io):
                stack.enter_context(mock.patch.object(module, "open", self._opening(module.open)))
            yield

    def _counted(self, function: Any, name: str, where: int) -> Any:
        def call(*words: Any, **options: Any) -> Any:
            self.meet(name, words[where] if len(words) > where else "")
            return function(*words, **options)

        return call

    def _opening(self, function: Any) -> Any:
        def opened(path: Any, mode: str = "r", *words: Any, **options: Any) -> Any:
            file = function(path, mode, *words, **options)
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            return _Writing(file, self, path) if writes and self.armed and self._is_inside(path) else file

        return opened


class _Writing:
    """A file that may be refused at its first write, or when its buffer is written out as it is closed.

    What fails leaves half of its bytes behind, as a full disk does.
    """

    def __init__(self, file: Any, disk: FailingDisk, path: Any) -> None:
        self._file, self._disk, self._path, self._begun = file, disk, path, False

    def write(self, content: Any) -> int:
        if not self._begun:
            self._begun = True
            try:
                self._disk.meet("write", self._path)
            except OSError:
                self._file.write(content[: len(content) // 2])
                self._file.flush()
                raise
        return self._file.write(content)

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            try:
                self._disk.meet("flush", self._path)
            except OSError:
                os.truncate(self._path, os.path.getsize(self._path) // 2)
                raise
            finally:
                self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Writing:
        self._file.__enter__()
        return self

    def __exit__(self, kind: Any, *words: Any) -> Any:
        if kind is None:
            self.close()
            return None
        return self._file.__exit__(kind, *words)

    def __iter__(self) -> Any:
        return iter(self._file)


@contextlib.contextmanager
def failing(root: Path, address: str, number: int, error: int) -> Iterator[FailingDisk]:
    """Let the commit of one stage meet a failing disk."""
    disk = FailingDisk(root, number, error)
    publish, request, commit = flows.stage.replace_directory, flows.stage.run_request, DvcGraph.commit

    def publishing(source: Path, target: Path) -> None:
        disk.armed = _publishes(address, target, root)
        publish(source, target)

    def asked(payload: dict[str, Any]) -> dict[str, Any]:
        try:
            return request(payload)
        finally:
            disk.armed = False

    def committing(graph: DvcGraph, which: str) -> None:
        disk.armed = which == address
        try:
            commit(graph, which)
        finally:
            disk.armed = False

    with (
        disk.installed(),
        mock.patch.object(flows.stage, "replace_directory", publishing),
        mock.patch.object(flows.stage, "run_request", asked),
        mock.patch.object(DvcGraph, "commit", committing),
    ):
        yield disk


def _publishes(address: str, target: Path, root: Path) -> bool:
    name = address.partition(":")[2]
    if name.endswith("-judge"):
        return target.relative_to(root).parts[0] == "results"
    _, kind, arm, seed = name.split("-")
    return target.relative_to(root).as_posix().endswith(f"{kind}/{arm}/{seed}/run")


def forget(root: Path, address: str) -> None:
    """Make a recorded stage one that never ran: no output, no object of it alone, no run in the cache, no record."""
    import yaml

    lock = root / "params" / "chaos" / "dvc.lock"
    content = yaml.safe_load(lock.read_text())
    entry = content["stages"].pop(address.partition(":")[2])
    text = lock.read_text()
    lock.write_text(_without(text, address.partition(":")[2]))
    for out in entry["outs"]:
        shutil.rmtree(root / out["path"])
        listing = root / ".dvc" / "cache" / "files" / "md5" / out["md5"][:2] / out["md5"][2:]
        listing.unlink(missing_ok=True)
    for run in (root / ".dvc" / "cache" / "runs").glob("*/*/*"):
        if entry["outs"][0]["md5"] in run.read_text():
            run.unlink()
            run.parent.rmdir()
    (root / ".tessera" / "settled.json").unlink(missing_ok=True)


def _without(lock: str, name: str) -> str:
    kept, skipping = [], False
    for line in lock.splitlines(keepends=True):
        if line.startswith("  ") and not line.startswith("   "):
            skipping = line == f"  {name}:\n"
        if not skipping:
            kept.append(line)
    return "".join(kept)


def try_every_operation(root: Path, undisturbed: Path, address: str, *, both: bool) -> dict[str, Any]:
    """Fail each operation of a stage's commit once; return how many there were and what was wrong."""
    wrong: list[str] = []
    failed: list[str] = []
    stage = here.Stage(root, address)
    for number in range(LIMIT):
        for error in ERRORS if both else ERRORS[number % 2 : number % 2 + 1]:
            forget(root, address)
            with failing(root, address, number, error) as disk:
                said = stage.run()
            if not disk.what:
                return {"operations": number, "failed": failed, "wrong": wrong + _at_the_end(root, undisturbed)}
            failed.append(f"{errno.errorcode[error]} at {disk.what}")
            found = invariants.at_rest(root, undisturbed, said)
            begun = invariants.starts(root)
            again = stage.run()
            found += invariants.nothing_ran_again(root, begun) + _at_the_end(root, undisturbed)
            if again:
                found.append(f"the rerun failed: {again[-500:]}")
            print(failed[-1], *found, sep="\n    ", file=sys.stderr, flush=True)
            wrong += [f"after {failed[-1]}: {what}" for what in found]
    return {"operations": LIMIT, "failed": failed, "wrong": [*wrong, "no commit ended untouched"]}


def _at_the_end(root: Path, undisturbed: Path) -> list[str]:
    return invariants.same_as_undisturbed(root, undisturbed) + invariants.nothing_forgotten(root, tracked=False)


if __name__ == "__main__":
    where, kind, *options = sys.argv[1:]
    chosen = {"train": "plain-train-wide-s3", "evaluate": "plain-evaluate-narrow-s2", "judge": "plain-judge"}[kind]
    stage = f"params/chaos/dvc.yaml:{chosen}"
    print(json.dumps(try_every_operation(Path.cwd(), Path(where), stage, both="--both" in options)))
