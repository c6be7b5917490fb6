"""A small process that outlives the driver just long enough to stop everything the driver started.

Ray's agents and Prefect's embedded server survive a driver that is killed with SIGKILL. The driver therefore starts
this module first and keeps the write end of its standard input open: end-of-file means that the driver is gone,
however it went; a word before it, that the driver goes on without supervision. Every second the reaper notes the
driver's descendants; at the end it also looks for processes that carry the driver's mark in their environment, and
kills what is left.

It imports only the standard library, so that it costs 30 ms and no memory worth naming.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

MARK = "TESSERA_DRIVER"

Process = tuple[int, int]
"""A process that cannot be confused with a later one of the same number: (pid, start time in clock ticks)."""


def _table() -> dict[int, tuple[int, int]]:
    """Return {pid: (parent pid, start time)} of all living processes that can be read (zombies left out)."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            table[int(entry)] = (int(fields[1]), int(fields[19]))
    return table


def descendants(roots: Iterable[int]) -> set[Process]:
    """Return all living descendants of the given process numbers."""
    table = _table()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: set[Process] = set()
    pending = list(roots)
    while pending:
        for child in children.get(pending.pop(), []):
            process = (child, table[child][1])
            if process not in found:
                found.add(process)
                pending.append(child)
    return found


def marked(mark: str) -> set[Process]:
    """Return the living processes whose environment carries the driver's mark."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for pid, (_, start) in _table().items():
        try:
            if wanted in Path("/proc", str(pid), "environ").read_bytes().split(b"\0"):
                found.add((pid, start))
        except OSError:
            continue
    return found


def alive(processes: Iterable[Process]) -> set[Process]:
    """Return those of the given processes that still live."""
    table = _table()
    return {(pid, start) for pid, start in processes if pid in table and table[pid][1] == start}


def _signal(processes: Iterable[Process], number: int) -> None:
    for pid, _ in alive(processes):
        try:
            os.kill(pid, number)
        except OSError:
            continue


def stop(known: set[Process], mark: str, *, spare: frozenset[int], grace: float = 1.0, limit: float = 20.0) -> None:
    """Stop the known processes, their descendants and all marked ones: politely first, then for certain.

    Args:
        known: Processes seen while the driver lived.
        mark: The driver's mark.
        spare: Process numbers to leave alone (the reaper itself).
        grace: Seconds between SIGTERM and SIGKILL.
        limit: Seconds after which to give up.
    """
    began = time.monotonic()
    number = signal.SIGTERM
    while time.monotonic() - began < limit:
        found = alive(known) | descendants(pid for pid, _ in alive(known)) | marked(mark)
        found = {process for process in found if process[0] not in spare}
        if not found:
            return
        known |= found
        _signal(found, number)
        time.sleep(grace if number == signal.SIGTERM else 0.1)
        number = signal.SIGKILL


def main() -> None:
    """Watch until standard input closes, then stop everything that is left."""
    driver, mark = int(sys.argv[1]), sys.argv[2]
    earlier = {(int(pid), int(start)) for pid, start in (word.split(":") for word in sys.argv[3:])}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spare = frozenset({os.getpid(), driver})
    known: set[Process] = set()
    closed = False
    while True:
        ready, _, _ = select.select([sys.stdin.buffer], [], [], 1.0)
        if ready:
            said = os.read(sys.stdin.fileno(), 64)
            if not said:
                break
            closed = True
        known |= {process for process in descendants([driver]) if process[0] not in spare}
    if closed:
        # The driver goes on living: what it had started before it called for supervision is its own affair.
        still = earlier | descendants(pid for pid, _ in alive(earlier))
        known -= still
        spare |= {pid for pid, _ in still}
    stop(known, mark, spare=spare)


if __name__ == "__main__":
    main()
