"""One driver per workspace: the second is refused with who holds the lock."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from components.errors import TesseraError
from flows.engine.redaction import without_credentials


class WorkspaceBusy(TesseraError):
    """Another driver runs in this workspace."""


class WorkspaceReadOnly(TesseraError):
    """The workspace cannot be written to."""


@contextlib.contextmanager
def workspace_lock(path: Path, command: str) -> Iterator[None]:
    """Hold the workspace for one driver.

    The lock is the kernel's (flock), so it goes with the process that held it, however that ended; what stands in
    the file only says who it is.

    Args:
        path: Lock file; its folder is made.
        command: What the holder runs, for the message to others.

    Raises:
        WorkspaceBusy: Another process holds it.
        WorkspaceReadOnly: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held open as long as the lock
    except OSError as error:
        raise WorkspaceReadOnly(
            f"WorkspaceReadOnly: cannot write {path} ({error.strerror}). Tessera writes locks, runs and results into "
            "the workspace; use a copy you may write to, or mount it read-write."
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise WorkspaceBusy(_busy(path, handle.read())) from None
        handle.truncate(0)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        handle.write(json.dumps(holder))
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def _busy(path: Path, text: str) -> str:
    try:
        holder = json.loads(text)
        who = f"process {holder['pid']} on {holder['host']} ({holder['command']}, since {holder['since']})"
    except (ValueError, KeyError):
        who = "another process"
    return (
        f"WorkspaceBusy: {who} holds {path}. Two runs in one workspace would write the same outputs; wait for it, "
        "stop it, or use a second clone."
    )


def command_line() -> str:
    """Return this process's command line as a person would have typed it, without passwords in addresses."""
    return without_credentials(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
