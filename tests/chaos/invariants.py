"""What must hold after every fault, whatever it was. All of it stands in this file, and every trial asks all of it.

    at rest (the disturbed run has ended, however it ended)
        nothing_left          no process of the run lives
        locks_are_whole       every dvc.lock parses; each stage in it is recorded as the undisturbed run records it
        committed_is_valid    the outputs of every recorded stage lie there and have the recorded content
        nothing_half_written  what has its final name is complete: outputs, objects of the cache, databases, records
        failures_are_told     every failed stage: path of its log, the log's end, the command to retry
    after the rerun
        nothing_ran_again     no stage that was recorded at rest was started again
        same_as_undisturbed   locks, metrics and all deterministic outputs, byte for byte
        nothing_forgotten     no partial file, no record that still waits

Each returns what is wrong, in words; an empty list means that it holds. None of them uses code that a run writes with:
hashes and locks are read anew from the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

TAIL_LINES = 30
VARYING = {"minutes", "timed_stages"}
"""What `verdicts.json` says of the clock; all else in it is deterministic."""
PARTIAL = re.compile(r"\.(partial|writing|replaced|fetching)$")


def at_rest(root: Path, undisturbed: Path, said: str) -> list[str]:
    """Ask everything that must hold once the processes of a disturbed run are gone."""
    wrong = locks_are_whole(root, undisturbed)
    if not wrong:
        wrong += committed_is_valid(root)
    return wrong + nothing_half_written(root, undisturbed) + failures_are_told(root, said)


def nothing_left(mark: str, seconds: float = 45.0, spare: Iterable[int] = ()) -> list[str]:
    """Wait until no process carries the mark of a trial in its environment.

    Args:
        mark: `NAME=value`, in the environment of everything that the trial started.
        seconds: How long the reaper may take.
        spare: Processes that the trial itself still needs.
    """
    deadline = time.monotonic() + seconds
    while left := [process for process in marked(mark) if process.pid not in set(spare)]:
        if time.monotonic() > deadline:
            return [f"process {process.pid} ({_name(process)}) outlived the driver" for process in left]
        time.sleep(0.1)
    return []


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry a mark: those of one trial, and no others."""
    name, _, value = mark.partition("=")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value:
                found.append(process)
    return found


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:80] or process.name()
    return "?"


def recorded(root: Path) -> dict[str, dict[str, Any]]:
    """Return every stage that a lock of the workspace records, by its address; its paths start at the root.

    Raises:
        yaml.YAMLError: A lock is damaged.
    """
    found = {}
    for lock in _locks(root):
        folder = lock.parent.relative_to(root)
        stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
        for name, entry in stages.items():
            address = name if folder == Path() else f"{folder.as_posix()}/dvc.yaml:{name}"
            found[address] = entry
    return found


def _locks(root: Path) -> list[Path]:
    return sorted(path for path in [root / "dvc.lock", *(root / "params").glob("*/dvc.lock")] if path.exists())


def locks_are_whole(root: Path, undisturbed: Path) -> list[str]:
    """Compare every recorded stage with the undisturbed run's record of it."""
    try:
        ours = recorded(root)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        return [f"a lock is damaged: {error}"]
    theirs = recorded(undisturbed)
    wrong = [f"{address} is recorded, but not by the undisturbed run" for address in ours.keys() - theirs.keys()]
    for address in ours.keys() & theirs.keys():
        if _without_verdicts(ours[address]) != _without_verdicts(theirs[address]):
            wrong.append(f"{address} is recorded otherwise than by the undisturbed run")
    return wrong


def _without_verdicts(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out the hash of a judge's folder, whose verdicts hold minutes; its files are compared one by one."""
    outs = [
        {"path": out["path"]} if out["path"].startswith("results/") else out for out in entry["outs"]
    ]  # its size differs, too: digits of minutes
    return {**entry, "outs": outs}


def committed_is_valid(root: Path) -> list[str]:
    """Hash the outputs of every recorded stage anew."""
    wrong = []
    for address, entry in recorded(root).items():
        for out in entry["outs"]:
            path = root / out["path"]
            if not path.exists():
                wrong.append(f"{address}: its output {out['path']} is missing")
            elif content_hash(path) != out["md5"]:
                wrong.append(f"{address}: its output {out['path']} is not what the lock records")
    return wrong


def content_hash(path: Path) -> str:
    """Return DVC's hash of a file or folder, computed from its definition."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listing = json.dumps([{"md5": content_hash(path / name), "relpath": name} for name in files], sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def nothing_half_written(root: Path, undisturbed: Path) -> list[str]:
    """Look at everything that stands under its final name, recorded or not."""
    wrong = []
    for entry in recorded(undisturbed).values():
        for out in entry["outs"]:
            if (root / out["path"]).exists():
                wrong += _difference(root / out["path"], undisturbed / out["path"], out["path"])
    for path in _objects(root):
        name = f"{path.parent.name}{path.name}".removesuffix(".dir")
        if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != name:
            wrong.append(f"the object {name} of the cache has other content than its name says")
    for path in _databases(root):
        said = _integrity(path)
        if said != "ok":
            wrong.append(f"{path.relative_to(root)}: {said}")
    for path in _records(root):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            wrong.append(f"{path.relative_to(root)} is no JSON")
    return wrong


def _integrity(path: Path) -> str:
    """Ask SQLite of a copy: what an interrupted transaction left is rolled back as it is opened."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        try:
            with contextlib.closing(sqlite3.connect(Path(folder, path.name), timeout=30)) as database:
                return database.execute("pragma integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)


def _objects(root: Path) -> Iterator[Path]:
    for path in (root / ".dvc" / "cache" / "files" / "md5").glob("??/*"):
        if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name):
            yield path


def _databases(root: Path) -> Iterator[Path]:
    yield from (path for path in (root / "mlflow.db", root / ".tessera" / "prefect" / "prefect.db") if path.exists())


def _records(root: Path) -> Iterator[Path]:
    for pattern in (".tessera/spool/*/*.json", ".tessera/settled.json", "results/**/*.json", "runs/**/log/*.json"):
        yield from (path for path in root.glob(pattern) if not path.name.startswith("."))


def _difference(ours: Path, theirs: Path, name: str) -> list[str]:
    """Compare an output with the undisturbed one, file by file."""
    if ours.is_file() or theirs.is_file():
        same = ours.is_file() and theirs.is_file() and ours.read_bytes() == theirs.read_bytes()
        return [] if same else [f"{name} differs from the undisturbed run's"]
    files = [{path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()} for top in (ours, theirs)]
    wrong = [f"{name}/{file} stands in one of the two runs only" for file in files[0] ^ files[1]]
    for file in files[0] & files[1]:
        mine, other = (ours / file).read_bytes(), (theirs / file).read_bytes()
        if file == "verdicts.json":
            try:
                mine, other = ({k: v for k, v in json.loads(t).items() if k not in VARYING} for t in (mine, other))
            except ValueError:
                mine = b""
        if mine != other:
            wrong.append(f"{name}/{file} differs from the undisturbed run's")
    return wrong


def failures_are_told(root: Path, said: str) -> list[str]:
    """Read what a run printed at its end: for every stage that failed, a log, its last lines and what to type."""
    wrong = []
    lines = [line.rstrip() for line in said.splitlines()]
    for address in re.findall(r"^(\S+) failed: ", said, re.MULTILINE):
        begin = next(number for number, line in enumerate(lines) if line.startswith(f"{address} failed: "))
        part = lines[begin:]
        named = [match[1] for line in part if (match := re.match(r"\s*log: (\S+)", line))]
        if not named:
            wrong.append(f"{address} failed, and no log is named")
            continue
        log = root / named[0]
        if not log.is_file():
            wrong.append(f"{address} failed, and its log {named[0]} does not exist")
            continue
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        shown = _squeezed("".join(part))
        lost = [line for line in tail if _squeezed(line) not in shown]
        if lost:
            wrong.append(
                f"{address} failed, and {len(lost)} of its log's last lines are not shown, such as {lost[0]!r}"
            )
        if not any(re.match(r"\s*retry: tessera reproduce \S+", line) for line in part):
            wrong.append(f"{address} failed, and no command to retry is given")
    return wrong


def _squeezed(text: str) -> str:
    """Leave out spaces and margins: a terminal wraps long lines."""
    return re.sub(r"[\s|]+", "", text)


def starts(root: Path) -> dict[str, int]:
    """Return when each recorded stage was last started: its log is opened anew then. Nanoseconds since the epoch."""
    logs = {address: _log_of(entry) for address, entry in recorded(root).items()}
    return {address: (root / log).stat().st_mtime_ns for address, log in logs.items() if (root / log).is_file()}


def _log_of(entry: dict[str, Any]) -> str:
    output = entry["outs"][0]["path"]
    if output.startswith("data/"):
        return f"runs/{output}/log/log.txt"
    if output.startswith("results/"):
        return f"runs/{output.removeprefix('results/')}/judge/log/log.txt"
    return f"{output.removesuffix('/run')}/log/log.txt"


def nothing_ran_again(root: Path, before: dict[str, int]) -> list[str]:
    """Compare with what `starts` returned at rest."""
    after = starts(root)
    return [f"{address} was recorded and ran again" for address in before if after.get(address) != before[address]]


def same_as_undisturbed(root: Path, undisturbed: Path) -> list[str]:
    """Compare a finished workspace with the undisturbed one: every lock, every output, nothing more, nothing less."""
    wrong = locks_are_whole(root, undisturbed)
    ours, theirs = recorded(root), recorded(undisturbed)
    wrong += [f"{address} is not recorded" for address in theirs.keys() - ours.keys()]
    for lock in _locks(undisturbed):
        name = lock.relative_to(undisturbed).as_posix()
        mine = root / name
        if not mine.is_file() or _lock_bytes(mine) != _lock_bytes(lock):
            wrong.append(f"{name} differs from the undisturbed run's in its bytes")
    for entry in theirs.values():
        for out in entry["outs"]:
            if (root / out["path"]).exists():
                wrong += _difference(root / out["path"], undisturbed / out["path"], out["path"])
            else:
                wrong.append(f"{out['path']} is missing")
    return wrong


def _lock_bytes(lock: Path) -> list[str]:
    """Return the stages of a lock as text, sorted, without the hash and size of judges' folders.

    Stages stand in the lock in the order in which they ended, which no two parallel runs share.
    """
    parts = re.split(r"^(?=  \S)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    judged = re.compile(r"(- path: results/\S+\n(?:      hash: md5\n)?)      md5: \S+\n      size: \d+\n")
    return sorted(judged.sub(r"\1", part) for part in parts)


def nothing_forgotten(root: Path, *, tracked: bool = True) -> list[str]:
    """Look for what only an unfinished run may leave: partial files and waiting records."""
    wrong = []
    for top in ("runs", "data", "results", "params", ".tessera"):
        for path in (root / top).rglob("*"):
            if path.name.startswith(".") and PARTIAL.search(path.name):
                wrong.append(f"{path.relative_to(root)} was left behind")
    waiting = [path for path in (root / ".tessera" / "spool").glob("*/*.json") if path.parent.name != "rejected"]
    if tracked and waiting:
        wrong.append(f"{len(waiting)} records were not sent to MLflow")
    return wrong
