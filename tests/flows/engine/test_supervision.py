"""What the reaper stops, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import time

from flows.engine.supervision import Supervision

SLEEPER = [sys.executable, "-c", "import time; time.sleep(120)"]
# A grandchild in a session of its own, as Ray's workers are.
DETACHED = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'],"
    " start_new_session=True); print(p.pid, flush=True); time.sleep(120)",
]


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_closing_stops_children_and_their_detached_children_but_not_what_ran_before():
    before = subprocess.Popen(SLEEPER)
    supervision = Supervision()
    supervision.start()
    child = subprocess.Popen(DETACHED, stdout=subprocess.PIPE, text=True)
    grandchild = int(child.stdout.readline())
    supervision.close()
    try:
        assert is_gone(child.pid)
        assert is_gone(grandchild)
        assert before.poll() is None
    finally:
        before.kill()
        before.wait()
        child.wait()
        child.stdout.close()


def test_a_killed_driver_takes_everything_with_it(tmp_path):
    source = f"""
import os, signal, subprocess, sys
from flows.engine.supervision import Supervision
first = subprocess.Popen({SLEEPER!r})
supervision = Supervision()
supervision.start()
child = subprocess.Popen({DETACHED!r}, stdout=subprocess.PIPE, text=True)
print(first.pid, child.pid, child.stdout.readline().strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    driver = subprocess.run(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = [int(word) for word in driver.stdout.split()]
    assert len(pids) == 3
    deadline = time.monotonic() + 20
    while not all(is_gone(pid) for pid in pids[1:]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
