"""A stage on a machine that does not see the driver's workspace: fetch its inputs, run it, give its output back.

    code from Ray's working_dir ─┐
    inputs from the DVC remote ──┼─> a workspace on this node ─ flows.stage ─> output to the remote, log to the driver
    checkpoint from the remote ──┘

The workspace of a stage stays on the node until the stage has succeeded, so that a second attempt finds its
checkpoint; the checkpoint is also copied to the remote while the stage runs, for an attempt on another node.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flows
from components.errors import TesseraError
from flows.engine.digests import read_units
from flows.engine.object_store import ObjectStore
from flows.stage import GIT_COMMIT, find_stage, run_request

CHECKPOINT_SECONDS = 30.0
LARGEST_LOG = 2**20
SCRATCH = "TESSERA_SCRATCH"


def run_away(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the stage a request names in a workspace of its own; never raises.

    Args:
        request: What `flows.stage.run_request` takes (its "root" is the driver's and not used), and "away": {"remote":
            settings of the DVC remote, "inputs": {path: hash}, "commit": git commit of the driver's workspace,
            "workspace": a name for that workspace}.

    Returns:
        What `run_request` returns, and "output": {path: hash} when it succeeded, "logs": {name: base64}.
    """
    away = request["away"]
    try:
        home = scratch() / away["workspace"]
        key = _key(request)
        store = ObjectStore(away["remote"], home / "cache", linked=True)
        with _alone(home / "stages" / f"{key}.lock"):
            return _run(request, store, home / "stages" / key, f"tessera/checkpoints/{key}")
    except TesseraError as error:
        return {"status": "failed", "message": str(error), "exit_code": error.exit_code, "log": "", "traceback": ""}
    except OSError as error:
        message = f"{type(error).__name__} on node {os.uname().nodename}: {error}"
        return {"status": "failed", "message": message, "exit_code": 1, "log": "", "traceback": ""}


def scratch() -> Path:
    """Return the folder on this node for inputs and unfinished stages: TESSERA_SCRATCH, else one below the system's."""
    named = os.environ.get(SCRATCH)
    return Path(named) if named else Path(tempfile.gettempdir()) / f"tessera-{getpass.getuser()}"


def code_root() -> Path:
    """Return the folder from which this process runs the code; `params/` lies beside it."""
    return Path(flows.__path__[0]).resolve().parent


def _key(request: Mapping[str, Any]) -> str:
    """Name an attempt at a stage: the same for the same stage, inputs, code and parameters."""
    spec = find_stage(code_root(), list(request["arguments"]), request["profile"], request.get("under", ""))
    known = [request[key] for key in ("arguments", "profile", "set", "under") if key in request]
    known += [request["away"]["inputs"], read_units(code_root(), spec).get(spec.unit)]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process on this node works at the same stage (one that a dead driver left)."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(request: Mapping[str, Any], store: ObjectStore, root: Path, remembered: str) -> dict[str, Any]:
    away = request["away"]
    root.mkdir(parents=True, exist_ok=True)
    params = root / "params"
    params.unlink(missing_ok=True)
    params.symlink_to(code_root() / "params")
    for path, name in away["inputs"].items():
        target = inside(root, path)
        if not target.exists():
            store.get(name, target)
    spec = find_stage(root, list(request["arguments"]), request["profile"], request.get("under", ""))
    checkpoint = (root / spec.output).parent / f"{Path(spec.output).name}-checkpoint"
    if not checkpoint.exists():
        store.read(remembered, checkpoint)
    with _environment(away), _Copies(store, checkpoint, remembered):
        result = dict(run_request({**request, "root": str(root)}))
    result["logs"] = _logs(root / spec.log)
    if result["status"] == "done" and not request.get("under"):
        result["output"] = {spec.output: store.put(root / spec.output)}
        store.remove(remembered)
    if result["status"] == "done":
        shutil.rmtree(root)
    return result


def inside(root: Path, path: str) -> Path:
    """Return a path below the root.

    Raises:
        TesseraError: It leads out of it.
    """
    full = root / path
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise TesseraError(f"{path!r} leads out of the workspace; expected a path below it.")
    return full


@contextlib.contextmanager
def _environment(away: Mapping[str, Any]) -> Iterator[None]:
    """Tell the stage the commit, which a copy of the code does not know, and hide a mirror that is not on this node."""
    before = dict(os.environ)
    os.environ[GIT_COMMIT] = away["commit"]
    mirror = os.environ.get("TESSERA_MIRROR")
    if mirror and not Path(mirror).is_dir():
        del os.environ["TESSERA_MIRROR"]
    try:
        yield
    finally:
        for name in (GIT_COMMIT, "TESSERA_MIRROR"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _logs(folder: Path) -> dict[str, str]:
    """Return the files of a log folder; of a long text its end."""
    if not folder.is_dir():
        return {}
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    kept = {name: content[-LARGEST_LOG:] if name.endswith(".txt") else content for name, content in files.items()}
    return {name: base64.b64encode(content).decode() for name, content in kept.items() if len(content) <= LARGEST_LOG}


class _Copies:
    """Copies a stage's checkpoint to the remote whenever it has changed, in a thread beside the stage."""

    def __init__(self, store: ObjectStore, checkpoint: Path, name: str) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._name = name
        self._ended = threading.Event()
        self._seen: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch, name="checkpoints", daemon=True)

    def __enter__(self) -> _Copies:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(CHECKPOINT_SECONDS):
            # A copy saves time and no more: a remote that fails here does not fail the stage.
            with contextlib.suppress(TesseraError, OSError):
                self._copy()

    def _copy(self) -> None:
        # The signature goes last: without it what is there counts as no checkpoint.
        files = [path for path in self._checkpoint.rglob("*") if path.is_file() and not path.name.startswith(".")]
        changed = {path: path.stat().st_mtime_ns for path in files}
        for path in sorted(changed, key=lambda path: path.name == "signature"):
            relative = path.relative_to(self._checkpoint).as_posix()
            if self._seen.get(relative) != changed[path]:
                self._store.write(f"{self._name}/{relative}", path)
                self._seen[relative] = changed[path]
