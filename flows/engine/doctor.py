"""Looks at the machine and the workspace, and says what to do about each problem.

Nothing is changed, and nothing is imported that could be broken itself: versions come from package metadata, the
tracking database is opened with `sqlite3`, processes are read from the process table. Only torch is imported, to see
whether it can use an accelerator.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.engine import reaper
from flows.engine.doors import open_doors
from flows.engine.redaction import without_credentials
from flows.engine.spool import REJECTED, backlog
from flows.engine.tracking import default_uri

GIB = 2**30
LITTLE_DISK = 10 * GIB
NO_DISK = 1 * GIB
LITTLE_MEMORY = 4 * GIB
SHARED_MEMORY = 256 * 2**20
OLDEST_RAY = (2, 60)
MANY_SESSIONS = 20
HASHED_BYTES = 8 * 2**20

STATE_FOLDER = ".tessera"
SMALL_WAIT_SECONDS = 2.0

Status = Literal["ok", "warn", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        status: "ok"; "warn" where work goes on but something is missing; "problem" where runs will fail.
        says: What was found.
        fix: What to do; empty when it is ok.
    """

    name: str
    status: Status
    says: str
    fix: str = ""


def diagnose(root: Path) -> list[Finding]:
    """Look at everything, in the order in which a person would.

    Args:
        root: The workspace.
    """
    root = root.resolve()
    findings: list[Finding] = []
    for name, check in _CHECKS:
        try:
            findings += check(root)
        except Exception as error:
            says = f"could not be looked at: {type(error).__name__}: {error}"
            findings.append(Finding(name, "problem", says, "Report this with the message; the other lines still hold."))
    return findings


def _python(root: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.prefix == sys.base_prefix:
        fix = "make setup, then .venv/bin/tessera"
        yield Finding("Python", "warn", f"{version}, outside a virtual environment", fix)
    else:
        yield Finding("Python", "ok", version)


def _packages(root: Path) -> Iterator[Finding]:
    lock = root / "infra" / "requirements.lock"
    if not lock.is_file():
        yield Finding("packages", "problem", f"{lock.relative_to(root)} is missing", f"git checkout -- {lock.name}")
        return
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
    missing, different = [], []
    for name, version in pinned.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        # torch says which device it was built for behind a "+".
        if installed.partition("+")[0] != version.partition("+")[0]:
            different.append(f"{name} {installed} instead of {version}")
    if missing:
        says = f"{len(missing)} of {len(pinned)} locked packages are not installed: {_some(missing)}"
        yield Finding("packages", "problem", says, "rm -f .venv/.ready && make setup")
    if different:
        says = f"{len(different)} of {len(pinned)} packages have another version than the lock: {_some(different)}"
        fix = "rm -f .venv/.ready && make setup; until then results count as another machine class"
        yield Finding("packages", "warn", says, fix)
    if not missing and not different:
        yield Finding("packages", "ok", f"all {len(pinned)} as locked")


def _processor(root: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    says = f"{cores} cores, load {load:.1f}" + "".join(f", {name}={value}" for name, value in threads.items())
    if load > cores:
        fix = "Stop what else runs before stages that measure time."
        yield Finding("processor", "warn", f"{says}: busier than it has cores", fix)
    else:
        yield Finding("processor", "ok", says)


def _memory(root: Path) -> Iterator[Finding]:
    available = _meminfo().get("MemAvailable", 0)
    says = f"{available / GIB:.1f} GiB free"
    if available and available < LITTLE_MEMORY:
        fix = "Close other programs, or run fewer stages at once: tessera reproduce ... --jobs 1"
        yield Finding("memory", "warn", says, fix)
    else:
        yield Finding("memory", "ok", says)
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free < SHARED_MEMORY:
        size = shutil.disk_usage(shared).free / 2**20
        fix = "Ray needs 256 MiB there; in a container: docker run --shm-size=1g"
        yield Finding("shared memory", "problem", f"{size:.0f} MiB free in /dev/shm", fix)


def _accelerator(root: Path) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("accelerator", "ok", f"{names} (torch {torch.__version__})")
    elif Path("/dev/nvidia0").exists():
        fix = "Install the CUDA build of the locked torch version, or update the driver."
        yield Finding("accelerator", "warn", f"there is one, but torch {torch.__version__} cannot use it", fix)
    else:
        yield Finding("accelerator", "ok", "none; the small profile needs none")


def _disk(root: Path) -> Iterator[Finding]:
    places = {"workspace": root}
    temporary = Path(tempfile.gettempdir())
    if temporary.stat().st_dev != root.stat().st_dev:
        places["temporary files"] = temporary
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        says = f"{free / GIB:.1f} GiB free ({name}: {place})"
        fix = "Free some space: tessera clean, then dvc gc --workspace for the cache of old results."
        if free < NO_DISK:
            yield Finding("disk", "problem", says, fix)
        elif free < LITTLE_DISK:
            yield Finding("disk", "warn", says, fix)
        else:
            yield Finding("disk", "ok", says)
    if not os.access(root, os.W_OK):
        yield Finding("disk", "problem", f"{root} cannot be written to", "Use a copy that you own: git clone")


def _git(root: Path) -> Iterator[Finding]:
    try:
        status = _run_git(root, "status", "--porcelain", "--untracked-files=no")
        commit = _run_git(root, "rev-parse", "--short", "HEAD").strip()
    except FileNotFoundError:
        yield Finding("git", "problem", "git is not installed", "Install it; results are traced by their commit.")
        return
    except subprocess.CalledProcessError as error:
        says = error.stderr.strip().splitlines()[0] if error.stderr.strip() else "git cannot read this folder"
        fix = "Work in a git clone, with at least one commit."
        yield Finding("git", "problem", says, fix)
        return
    changed = [line[3:] for line in status.splitlines()]
    conflicts = [line[3:] for line in status.splitlines() if "U" in line[:2] or line[:2] in ("AA", "DD")]
    if conflicts:
        fix = "Resolve the merge; a dvc.lock: take either side, then tessera sync and dvc status."
        yield Finding("git", "problem", f"at {commit}, in the middle of a merge: {_some(conflicts)}", fix)
    elif changed:
        fix = "Commit them before a run that is to be judged; verify reads commits only."
        yield Finding("git", "warn", f"at {commit}, {len(changed)} changed files: {_some(changed)}", fix)
    else:
        yield Finding("git", "ok", f"at {commit}, nothing changed")


def _dvc(root: Path) -> Iterator[Finding]:
    folder = root / ".dvc"
    if not folder.is_dir():
        yield Finding("DVC", "problem", "this folder is no DVC repository (.dvc is missing)", "git checkout -- .dvc")
        return
    cache = folder / "cache"
    for name in ("config", "config.local"):
        config = configparser.ConfigParser()
        try:
            config.read(folder / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            says = f".dvc/{name} cannot be read: {str(error).splitlines()[0]}"
            fix = "Correct it, or: git checkout -- .dvc/config" if name == "config" else "Correct or remove it."
            yield Finding("DVC", "problem", says, fix)
        else:
            cache = folder / config.get("cache", "dir", fallback=str(cache)).strip("'\"")
    rwlock = folder / "tmp" / "rwlock"
    if rwlock.is_file() and not _is_json(rwlock):
        yield Finding("DVC", "problem", ".dvc/tmp/rwlock is damaged", "With no DVC command running: rm .dvc/tmp/rwlock")
    damaged = [
        str(lock.relative_to(root))
        for lock in [root / "dvc.lock", *sorted((root / "params").glob("*/dvc.lock"))]
        if lock.is_file() and _is_torn(lock)
    ]
    if damaged:
        fix = f"git checkout -- {damaged[0]} (and the others), then tessera reproduce goes on from there"
        yield Finding("DVC", "problem", f"torn or unmerged lock files: {_some(damaged)}", fix)
    if not (root / "dvc.yaml").is_file():
        yield Finding("DVC", "problem", "dvc.yaml is missing", "tessera sync")
    files, size = _folder_size(cache)
    yield Finding("DVC", "ok", f"cache of {size / GIB:.2f} GiB in {files} files ({cache})")


def _lock(root: Path) -> Iterator[Finding]:
    path = root / STATE_FOLDER / "lock"
    if not path.is_file():
        return
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                holder = json.loads(file.read())
                who = f"process {holder['pid']} on {holder['host']}: {holder['command']}"
            except (ValueError, KeyError):
                who = "another process"
            yield Finding("running", "ok", f"a run is going on in this workspace ({who})")


def _leftovers(root: Path) -> Iterator[Finding]:
    """Find processes that a dead driver left: they carry its mark, and its reaper is gone."""
    import psutil

    marked: dict[int, tuple[str, str]] = {}
    guarded: set[str] = set()
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if len(command) > 3 and command[-3].endswith("reaper.py"):
                guarded.add(command[-1])
            elif mark := process.environ().get(reaper.MARK):
                marked[process.pid] = (mark, process.name())
        except psutil.Error:
            continue
    left = {pid: name for pid, (mark, name) in marked.items() if mark not in guarded}
    if left:
        says = (
            f"{len(left)} processes of a run that has ended: {_some([f'{name} ({pid})' for pid, name in left.items()])}"
        )
        yield Finding("left-over processes", "warn", says, f"kill {' '.join(map(str, left))}")
    else:
        yield Finding("left-over processes", "ok", "none")


def _doors(root: Path) -> Iterator[Finding]:
    found = [Finding("doors", door.status, door.says, door.fix) for door in open_doors(os.environ)]
    yield from found or [Finding("doors", "ok", "nothing of ours can be reached from other machines")]


def _ray(root: Path) -> Iterator[Finding]:
    version = importlib.metadata.version("ray")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_RAY:
        says = f"{version}; {'.'.join(map(str, OLDEST_RAY))} is the first whose token authentication is used here"
        yield Finding("Ray", "problem", says, "rm -f .venv/.ready && make setup")
        return
    folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"
    sessions = [path for path in folder.glob("session_*") if path.is_dir() and not path.is_symlink()]
    if len(sessions) > MANY_SESSIONS:
        fix = f"With no run going on: rm -r {folder}/session_*"
        yield Finding("Ray", "warn", f"{version}; {len(sessions)} old session folders in {folder}", fix)
    else:
        yield Finding("Ray", "ok", version)


def _mlflow(root: Path) -> Iterator[Finding]:
    uri = default_uri(root)
    if uri.startswith(("http://", "https://")):
        yield _server("MLflow", uri, "/health", "Runs go on; records wait in the spool until it answers.")
        return
    if not uri.startswith("sqlite:///"):
        yield Finding("MLflow", "ok", f"{without_credentials(uri)} (not looked into)")
        return
    path = Path(uri.removeprefix("sqlite:///"))
    yield _database(path, uri)
    stray = [store for store in (root / "mlruns").glob("*/meta.yaml") if store.parent.name.isdigit()]
    if stray:
        says = "mlruns/ holds an old file store, which `mlflow ui` would open instead of the database"
        yield Finding("MLflow", "warn", says, "mlflow ui --backend-store-uri sqlite:///mlflow.db")


def _database(path: Path, uri: str) -> Finding:
    if not path.is_file():
        return Finding("MLflow", "ok", f"no database yet; the first run makes {path.name}")
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=SMALL_WAIT_SECONDS, isolation_level=None)
    try:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    except (sqlite3.DatabaseError, TypeError) as error:
        if "locked" in str(error):
            fix = "Wait for it or stop it (an `mlflow db` command?); records wait in the spool meanwhile."
            return Finding("MLflow", "warn", f"{path.name} is locked by another process", fix)
        fix = f"Move {path.name} away; the next run makes a new one. Results do not depend on it."
        return Finding("MLflow", "problem", f"{path.name} cannot be read: {error}", fix)
    finally:
        connection.close()
    known, newest = _mlflow_schemas()
    if found == newest:
        return Finding("MLflow", "ok", f"{path.name}, {runs} runs")
    if found in known:
        fix = f"Copy {path.name} as a backup, then: mlflow db upgrade {uri}"
        return Finding("MLflow", "problem", f"{path.name} was made by an older MLflow", fix)
    fix = "Install the locked packages (make setup), or move the file away."
    return Finding("MLflow", "problem", f"{path.name} was made by a newer MLflow", fix)


def _mlflow_schemas() -> tuple[set[str], str]:
    """Return all schema revisions of the installed MLflow and the newest, without importing it."""
    files = importlib.metadata.distribution("mlflow-skinny").files or []
    texts = [
        Path(file.locate()).read_text(encoding="utf-8")
        for file in files
        if file.parent.as_posix().endswith("store/db_migrations/versions") and file.suffix == ".py"
    ]
    below = {}
    for text in texts:
        revision = re.search(r"^revision\s*=\s*[\"'](\w+)", text, re.MULTILINE)
        parent = re.search(r"^down_revision\s*=\s*[\"'](\w+)", text, re.MULTILINE)
        if revision:
            below[revision[1]] = parent[1] if parent else None
    (newest,) = below.keys() - set(below.values())
    return set(below), newest


def _spool(root: Path) -> Iterator[Finding]:
    folder = root / STATE_FOLDER / "spool"
    kept = backlog(folder)
    if kept.waiting:
        says = f"{kept.waiting} records wait for MLflow ({kept.bytes / 2**20:.1f} MiB)"
        fix = "The next run sends them; see the line on MLflow for why they wait."
        yield Finding("tracking spool", "warn", says, fix)
    if kept.rejected:
        place = (folder / REJECTED).relative_to(root)
        fix = f"Read the reason in {place}/*.json, then remove them; the results themselves are in runs/ and results/."
        yield Finding("tracking spool", "warn", f"MLflow refused {kept.rejected} records for good", fix)
    if not kept.waiting and not kept.rejected:
        yield Finding("tracking spool", "ok", "empty")


def _prefect(root: Path) -> Iterator[Finding]:
    uri = os.environ.get("PREFECT_API_URL")
    if not uri:
        yield Finding("Prefect", "ok", "no server set; each run brings its own")
        return
    yield _server("Prefect", uri, "/health", "Runs go on without it; or unset PREFECT_API_URL.")


def _mirror(root: Path) -> Iterator[Finding]:
    mirror = os.environ.get("TESSERA_MIRROR")
    if not mirror:
        yield Finding("mirror", "ok", "TESSERA_MIRROR is not set; embedded data need none")
        return
    if not Path(mirror).is_dir():
        yield Finding("mirror", "problem", f"TESSERA_MIRROR={mirror} is no folder", "Correct it, or unset it.")
        return
    from components.data.declaration import MirrorSource
    from flows.declarations.workspace import Workspace

    looked_at, wrong, missing = 0, [], []
    for name, declaration in Workspace.load(root).data.items():
        for source in declaration.sources:
            if not isinstance(source, MirrorSource):
                continue
            for file, expected in source.files.items():
                path = Path(mirror) / name / file
                if not path.is_file():
                    missing.append(f"{name}/{file}")
                elif path.stat().st_size <= HASHED_BYTES:
                    looked_at += 1
                    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                        wrong.append(f"{name}/{file}")
    if wrong:
        fix = "Copy them to the mirror again, or unset TESSERA_MIRROR to use the next source."
        yield Finding("mirror", "problem", f"files with another hash than declared: {_some(wrong)}", fix)
    if missing:
        fix = "Copy them to the mirror; without them the next source is used."
        yield Finding("mirror", "warn", f"{mirror} lacks {_some(missing)}", fix)
    if not wrong and not missing:
        yield Finding("mirror", "ok", f"{mirror} ({looked_at} small files hashed, the others are hashed when used)")


def _data(root: Path) -> Iterator[Finding]:
    from components.data.availability import availability
    from flows.declarations.workspace import Workspace

    declared = Workspace.load(root).data
    here = {name for name in declared if (root / "data" / name / "meta.json").is_file()}
    absent = {name: declaration for name, declaration in declared.items() if name not in here}
    states = availability(absent, os.environ.get("TESSERA_MIRROR"), seconds=SMALL_WAIT_SECONDS)
    ready = {state.name for state in states if state.ready}
    out_of_reach = {name: [state.detail for state in states if state.name == name] for name in absent.keys() - ready}
    if out_of_reach:
        why = [f"{name} ({'; '.join(dict.fromkeys(details))})" for name, details in sorted(out_of_reach.items())]
        fix = "Set TESSERA_MIRROR to a folder that has them, or go online; papers on other data run all the same."
        yield Finding("data", "warn", f"{len(why)} of {len(declared)} data sets are out of reach: {_some(why)}", fix)
    else:
        says = f"{len(declared)} declared: {len(here)} here, {len(absent)} can be obtained now"
        yield Finding("data", "ok", says)


_CHECKS: tuple[tuple[str, Callable[[Path], Iterator[Finding]]], ...] = (
    ("Python", _python),
    ("packages", _packages),
    ("processor", _processor),
    ("memory", _memory),
    ("accelerator", _accelerator),
    ("disk", _disk),
    ("git", _git),
    ("DVC", _dvc),
    ("running", _lock),
    ("left-over processes", _leftovers),
    ("doors", _doors),
    ("Ray", _ray),
    ("Prefect", _prefect),
    ("MLflow", _mlflow),
    ("tracking spool", _spool),
    ("mirror", _mirror),
    ("data", _data),
)


def _server(name: str, uri: str, path: str, fix: str) -> Finding:
    shown = without_credentials(uri)
    try:
        with urllib.request.urlopen(uri.rstrip("/") + path, timeout=SMALL_WAIT_SECONDS):
            return Finding(name, "ok", f"{shown} answers")
    except (urllib.error.URLError, OSError, ValueError) as error:
        return Finding(name, "warn", f"{shown} does not answer: {getattr(error, 'reason', error)}", fix)


def _run_git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=30
    ).stdout


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return False
    return True


def _is_torn(lock: Path) -> bool:
    # A whole parse of all locks would take seconds; these are the ways in which they break.
    text = lock.read_text(encoding="utf-8", errors="replace")
    return "schema:" not in text or not text.endswith("\n") or "\n<<<<<<<" in f"\n{text}" or "\0" in text


def _folder_size(folder: Path) -> tuple[int, int]:
    """Return the number of files below a folder and their size in bytes."""
    files, size = 0, 0
    for place, _, names in os.walk(folder):
        for name in names:
            files += 1
            size += os.lstat(os.path.join(place, name)).st_size
    return files, size


def _meminfo() -> dict[str, int]:
    """Return /proc/meminfo in bytes; empty where there is none."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
