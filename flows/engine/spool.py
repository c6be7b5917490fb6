"""A queue of records on disk that survives the process and is emptied by whoever comes next.

Each living driver owns one folder, held by an advisory lock that the kernel releases however the driver dies:

    <spool>/<owner>/lock
    <spool>/<owner>/<time>-<number>.json      one record, written whole or not at all
    <spool>/<owner>/<time>-<number>.files/    copies of the files that go with it
    <spool>/rejected/                         records the receiver will never accept, each with the reason inside
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TesseraError
from components.training.atomic import write_bytes

REJECTED = "rejected"


class SpoolError(TesseraError):
    """A record could not be kept on disk."""


@dataclass(frozen=True)
class Backlog:
    """Records that wait on disk.

    Attributes:
        waiting: Records that will be sent when the next run starts.
        rejected: Records that the receiver refused for good.
        bytes: Size of all of them, in bytes.
    """

    waiting: int
    rejected: int
    bytes: int


class Spool:
    """The folder of one owner.

    Args:
        directory: Root that all owners share.
        owner: Name of this owner, such as a flow run id.

    Raises:
        SpoolError: The folder cannot be made, or a living process owns it.
    """

    def __init__(self, directory: Path, owner: str) -> None:
        self.root = directory
        self.owner = owner_name(owner)
        self.folder = directory / self.owner
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"cannot make {self.folder}: {error}. Free some space or fix its permissions.") from error
        self._lock = _try_lock(self.folder)
        if self._lock is None:
            raise SpoolError(f"{self.folder} belongs to a running process; give each run its own id.")
        self._count = 0

    def pending(self) -> list[Path]:
        """Return this owner's records in the order of writing."""
        return sorted(self.folder.glob("*.json"))

    def write(self, record: dict[str, Any], files: list[Path] | None = None) -> Path:
        """Keep a record, and copies of its files, and return its path.

        Raises:
            SpoolError: The disk refuses (full, read-only).
        """
        self._count += 1
        path = self.folder / f"{time.time_ns():020d}-{self._count:06d}.json"
        try:
            if files:
                copies = files_of(path)
                copies.mkdir()
                for file in files:
                    shutil.copyfile(file, copies / file.name)
            _write_json(path, record)
        except OSError as error:
            shutil.rmtree(files_of(path), ignore_errors=True)
            raise SpoolError(f"cannot keep a record at {path}: {error}. Free some space on that disk.") from error
        return path

    def remove(self, path: Path) -> None:
        """Forget a record that was delivered."""
        path.unlink(missing_ok=True)
        shutil.rmtree(files_of(path), ignore_errors=True)

    def reject(self, path: Path, reason: str) -> Path:
        """Move a record aside that the receiver will never accept, and note why; return its new path."""
        aside = self.root / REJECTED / f"{self.owner}-{path.name}"
        aside.parent.mkdir(exist_ok=True)
        try:
            record = json.loads(path.read_text())
        except ValueError:
            record = {"unreadable": path.read_text(errors="replace")}
        _write_json(aside, {"reason": reason, "record": record})
        if files_of(path).exists():
            shutil.move(files_of(path), files_of(aside))
        self.remove(path)
        return aside

    def release(self) -> None:
        """Give up the folder; it disappears when no record is left in it."""
        if not self.pending():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def adopt(self) -> list[Spool]:
        """Return the spools that dead owners left, now owned by this process, oldest record first."""
        adopted = []
        for folder in sorted(self.root.iterdir()):
            if folder == self.folder or folder.name == REJECTED or not folder.is_dir():
                continue
            try:
                adopted.append(Spool(self.root, folder.name))
            except SpoolError:
                continue  # Its owner lives.
        return sorted(adopted, key=lambda spool: [path.name for path in spool.pending()[:1]])


def owner_name(owner: str) -> str:
    """Return the folder name of an owner."""
    return re.sub(r"[^\w-]", "_", owner)


def files_of(path: Path) -> Path:
    """Return the folder that holds copies of a record's files."""
    return path.with_suffix(".files")


def waits(directory: Path) -> bool:
    """Tell whether a spool root holds records that no living owner will send."""
    for folder in sorted({path.parent for path in directory.glob("*/*.json")}):
        try:
            lock = None if folder.name == REJECTED else _try_lock(folder)
        except FileNotFoundError:
            continue  # Sent in this moment.
        if lock is not None:
            os.close(lock)
            return True
    return False


def backlog(directory: Path) -> Backlog:
    """Count what waits under a spool root, without taking any lock."""
    records = list(directory.glob("*/*.json"))
    rejected = sum(path.parent.name == REJECTED for path in records)
    size = sum(path.stat().st_size for path in directory.glob("*/**/*") if path.is_file())
    return Backlog(waiting=len(records) - rejected, rejected=rejected, bytes=size)


def _try_lock(folder: Path) -> int | None:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write_json(path: Path, value: Any) -> None:
    write_bytes(path, json.dumps(value, separators=(",", ":")).encode())
