"""A DVC workspace of small text stages, for tests of the executor; it knows nothing of papers.

Each stage reads `in/<name>.txt` and the outputs of the stages above it, and writes `out/<name>`: the sum of all the
numbers it read. A stage fails, sleeps, or dies when its input file says so.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import yaml

FUNCTION = "toy_dag:call"


def make(
    root: Path, above: dict[str, list[str]], inputs: dict[str, str] | None = None, meta: dict | None = None
) -> None:
    """Create a git and DVC repository with one stage per key of `above`, fed by the stages it names."""
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "tests@example.org"],
        ["git", "config", "user.name", "tests"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        [sys.executable, "-m", "dvc", "config", "core.analytics", "false"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    (root / ".gitignore").write_text("/out/\n/.tessera/\n/.traces/\n")
    (root / "in").mkdir()
    stages = {}
    for name, names in above.items():
        (root / "in" / f"{name}.txt").write_text((inputs or {}).get(name, "1"))
        stages[name] = {
            "cmd": f"{Path(sys.executable).name} -m toy_dag {name} {' '.join(names)}".strip(),
            "deps": [f"in/{name}.txt", *(f"out/{other}" for other in names)],
            "outs": [f"out/{name}"],
        } | ({"meta": meta[name]} if meta and name in meta else {})
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def call(payload: dict[str, Any]) -> dict[str, Any]:
    """Run a stage from its command line; the function that workers call."""
    root = Path(payload["root"])
    _, _, _, name, *above = payload["command"].split()
    return {"value": work(root, name, above)}


def work(root: Path, name: str, above: list[str]) -> int:
    """Read, add, write; obey what the input file says besides a number."""
    words = (root / "in" / f"{name}.txt").read_text().split()
    traces = root / ".traces"
    traces.mkdir(exist_ok=True)
    with open(traces / name, "a") as trace:
        trace.write(f"{os.getpid()}\n")
    total = 0
    for word in words:
        if word == "fail":
            raise ValueError(f"{name} was told to fail")
        if word == "silent":
            return 0
        if word.startswith("sleep="):
            time.sleep(float(word.removeprefix("sleep=")))
        elif word == "torch":
            import torch  # noqa: F401 - what a stage that trains pays for first
        elif word == "die-once":
            if len((traces / name).read_text().split()) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            total += int(word)
    total += sum(int((root / "out" / other).read_text()) for other in above)
    (root / "out").mkdir(exist_ok=True)
    partial = root / "out" / f".{name}.{os.getpid()}"
    partial.write_text(str(total))
    os.replace(partial, root / "out" / name)
    return total


def runs(root: Path, name: str) -> int:
    """Return how often a stage ran."""
    trace = root / ".traces" / name
    return len(trace.read_text().split()) if trace.exists() else 0


class ThreadDispatch:
    """Runs calls on threads of this process: the executor's tests need no Ray."""

    def __init__(self, slots: int = 2) -> None:
        self._slots = slots
        self._pool = ThreadPoolExecutor(slots)
        self.started = False

    def start(self) -> None:
        self.started = True

    def wait_ready(self, timeout: float = 0.0) -> None:
        self.started = True

    def slots(self) -> float:
        return self._slots

    def check(self, name: str, resources: Any) -> None:
        return None

    def submit(self, name: str, call_: Any) -> Future:
        return self._pool.submit(call, call_.payload)

    def wait(self, handles: list[Future], timeout: float) -> list[Future]:
        ended, _ = wait(handles, timeout=timeout, return_when=FIRST_COMPLETED)
        return list(ended)

    def result(self, handle: Future) -> Any:
        return handle.result()

    def cancel(self, handle: Future) -> None:
        handle.cancel()


def drive(root: Path, *, force: bool = False, prefect: bool = False, address: str | None = None, cpus: int = 2) -> None:
    """Run everything stale on a real Ray and print outcomes and timings: a driver that tests can kill."""
    began = time.monotonic()
    from flows.engine.dispatch import Call, RayDispatch
    from flows.engine.execution import Execution, Observer
    from flows.engine.graph import DvcGraph
    from flows.engine.orchestration import PrefectMirror
    from flows.engine.supervision import Supervision
    from flows.engine.workspace_lock import command_line, workspace_lock

    times: dict[str, float] = {}

    class Clock(Observer):
        def started(self, address: str) -> None:
            times.setdefault("first_stage", time.monotonic() - began)

    def show() -> None:
        from prefect import flow

        flow(name="toy")(mirror.follow)()

    with workspace_lock(root / ".tessera" / "lock", command_line()):
        supervision = Supervision()
        supervision.start()
        dispatch = RayDispatch([FUNCTION], address=address, cpus=None if address else cpus)
        mirror = PrefectMirror(root / ".tessera" / "prefect", show if prefect else None)
        graph = DvcGraph(root)
        execution = Execution(
            graph,
            dispatch,
            lambda node: Call(FUNCTION, {"root": str(root), "command": node.command}),
            force=frozenset(graph.nodes) if force else frozenset(),
            observers=(Clock(), mirror),
        )
        signal.signal(signal.SIGINT, lambda number, frame: execution.stop())
        with graph.locked():
            outcomes = execution.run(graph.nodes)
        times["last_commit"] = time.monotonic() - began
        dispatch.release()
        mirror.close(60.0 if prefect else 0.0)
        times["shown"] = time.monotonic() - began
        dispatch.close()
        supervision.close()
    times["all"] = time.monotonic() - began
    for outcome in outcomes.values():
        print(outcome.address, outcome.state.name, outcome.message, flush=True)
    times["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("times", json.dumps(times), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--drive":
        options = sys.argv[2:]
        named = next((option.partition("=")[2] for option in options if option.startswith("--address=")), None)
        cpus = next((int(option.partition("=")[2]) for option in options if option.startswith("--cpus=")), 2)
        drive(Path.cwd(), force="--force" in options, prefect="--prefect" in options, address=named, cpus=cpus)
    else:
        work(Path.cwd(), sys.argv[1], sys.argv[2:])
