"""Runs the stale part of a DVC graph in parallel: the distributed `dvc repro`.

One loop on the main thread owns all state: it asks DVC whether a stage whose inputs are settled is stale, restores it
from the run cache or submits it to the workers, and commits each stage the moment it ends, so that a crash loses at
most the stages in flight. Everything else (Prefect, MLflow, the progress display) watches through `Observer` and can
neither delay nor fail a stage.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from components.errors import TesseraError
from flows.engine.dispatch import Call, Unsatisfiable
from flows.engine.graph import DvcGraph
from flows.engine.nodes import Node, PlainGraph, downstream
from flows.engine.object_store import RemoteUnusable


class State(enum.Enum):
    """What became of a stage."""

    WAITING = "waiting"
    RUNNING = "running"
    CLEAN = "up to date"
    CACHED = "restored from the run cache"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    STOPPED = "stopped"


GOOD = frozenset({State.CLEAN, State.CACHED, State.DONE})


@dataclass
class Outcome:
    """The end of one stage.

    Attributes:
        address: The stage.
        state: What became of it.
        seconds: Wall time: what the result names as "seconds", else from submission to end.
        message: Why it failed or was skipped; empty otherwise.
        result: What its function returned.
    """

    address: str
    state: State
    seconds: float = 0.0
    message: str = ""
    result: Any = None


class Observer:
    """Is told what happens; the default does nothing. Exceptions from it are the caller's bug and do propagate."""

    def planned(self, stale: list[str], clean: list[str]) -> None:
        """The stages to consider are known; `stale` will run unless their inputs turn out unchanged."""

    def started(self, address: str) -> None:
        """A stage was handed to a worker."""

    def ended(self, outcome: Outcome) -> None:
        """A stage has come to its end and, if it succeeded, is committed."""

    def tick(self, running: list[str]) -> None:
        """Some time has passed."""


class Dispatch(Protocol):
    """What runs calls: `RayDispatch`, or a stand-in."""

    def start(self) -> None: ...
    def wait_ready(self, timeout: float = ...) -> None: ...
    def slots(self) -> float: ...
    def check(self, name: str, resources: Any) -> None: ...
    def submit(self, name: str, call: Call) -> Any: ...
    def wait(self, handles: list[Any], timeout: float) -> list[Any]: ...
    def result(self, handle: Any) -> Any: ...
    def cancel(self, handle: Any) -> None: ...


class StageFailed(TesseraError):
    """Raised by the function that reads a call's result, when the stage itself failed."""


@dataclass
class Execution:
    """One run over a DVC graph.

    Attributes:
        graph: The graph.
        dispatch: Runs the calls.
        call: Translates a stage into the call that runs it.
        read: Turns what a stage's call returned into its result; raises StageFailed when the stage failed.
        explain: Completes the message of a stage that failed, wherever it failed: what a person needs to go on.
        jobs: Stages at once; default: as many as the cluster has processors.
        force: Addresses to run although nothing changed.
        settled: Addresses that the caller has already brought up to date.
        priority: Larger runs earlier among stages that are ready.
        observers: Told what happens.
    """

    graph: DvcGraph | PlainGraph
    dispatch: Dispatch
    call: Callable[[Node], Call]
    read: Callable[[Node, Any], Any] = field(default=lambda node, value: value)
    explain: Callable[[Node, str], str] = field(default=lambda node, message: message)
    jobs: int | None = None
    force: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    priority: Callable[[Node], float] = field(default=lambda node: 0.0)
    observers: tuple[Observer, ...] = ()

    def __post_init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._stopping = False

    def stop(self) -> None:
        """Ask the run to stop; callable from any thread and from signal handlers."""
        self._stopping = True

    def plan(self, targets: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return (addresses that would run, addresses up to date), as far as can be known before running.

        A stage below a stale one counts as one that would run, although its inputs may turn out unchanged.
        """
        order = self.graph.select(targets)
        stale: set[str] = set()
        for address in order:
            if address in self.settled:
                continue
            node = self.graph.nodes[address]
            if stale.intersection(node.upstream) or address in self.force or self.graph.stale(address):
                stale.add(address)
        return [a for a in order if a in stale], [a for a in order if a not in stale]

    def run(self, targets: Iterable[str]) -> dict[str, Outcome]:
        """Run what is stale among the targets and everything above them.

        Returns:
            The outcome of every stage considered. Failures do not raise: independent stages go on, dependants are
            skipped, and the caller reads the outcomes.
        """
        order = self.graph.select(targets)
        stale, clean = self.plan(order)
        self._tell("planned", stale, clean)
        for address in clean:
            self._end(Outcome(address, State.CLEAN))
        if not stale:
            return self.outcomes
        self.dispatch.start()
        pending = dict.fromkeys(stale)
        running: dict[Any, tuple[str, float]] = {}
        for address in [a for a in stale if self.graph.nodes[a].frozen]:
            del pending[address]
            self._fail(address, _frozen(address, self.graph.missing_inputs(address)), pending)
        try:
            while (pending or running) and not self._stopping:
                for address in self._ready(pending):
                    if self._stopping or len(running) >= self._limit(bool(running)):
                        break
                    if self._alone(address) and len({self._alone(other) for other, _ in running.values()}) == 2:
                        break
                    del pending[address]
                    self._begin(address, running, pending)
                if running:
                    self._collect(running, pending)
                self._tell("tick", [address for address, _ in running.values()])
        except BaseException:
            self._stopping = True
            self._abandon(running, pending)
            raise
        if self._stopping:
            self._abandon(running, pending)
        return self.outcomes

    def _limit(self, started: bool) -> int:
        # One stage more than there are slots waits in the cluster's own queue, so that a worker is never idle while
        # the driver commits.
        if self.jobs is not None:
            return self.jobs
        return int(self.dispatch.slots()) + 1 if started else 1

    def _ready(self, pending: dict[str, None]) -> list[str]:
        ready = [
            address for address in pending if all(self._settled(above) for above in self.graph.nodes[address].upstream)
        ]
        # Stages that want a node for themselves come last, and one of them waits at most while others run: it waits
        # until its node is empty, and two that wait in the cluster's queue would leave processors idle.
        return sorted(ready, key=lambda address: (self._alone(address), -self.priority(self.graph.nodes[address])))

    def _alone(self, address: str) -> bool:
        return bool(self.graph.nodes[address].resources.get("exclusive"))

    def _settled(self, address: str) -> bool:
        outcome = self.outcomes.get(address)
        return outcome is not None and outcome.state in GOOD

    def _begin(self, address: str, running: dict, pending: dict[str, None]) -> None:
        node = self.graph.nodes[address]
        forced = address in self.force
        try:
            if not forced and not self.graph.stale(address):
                self._end(Outcome(address, State.CLEAN))
                return
            if not forced and self.graph.restore(address):
                self._end(Outcome(address, State.CACHED))
                return
            call = self.call(node)
            self.dispatch.wait_ready()
            self.dispatch.check(address, call.resources)
        except (Unsatisfiable, RemoteUnusable, StageFailed, OSError) as error:
            self._fail(address, str(error), pending)
            return
        running[self.dispatch.submit(address, call)] = (address, time.monotonic())
        self._tell("started", address)

    def _collect(self, running: dict, pending: dict[str, None]) -> None:
        for handle in self.dispatch.wait(list(running), timeout=0.2):
            address, began = running.pop(handle)
            try:
                result = self.read(self.graph.nodes[address], self.dispatch.result(handle))
                self.graph.commit(address)
            except Exception as error:
                self._fail(address, _reason(error), pending, time.monotonic() - began)
            else:
                # A stage may have waited in the cluster's queue; its own clock did not run then.
                own = result.get("seconds") if isinstance(result, Mapping) else None
                seconds = time.monotonic() - began if own is None else float(own)
                self._end(Outcome(address, State.DONE, seconds, result=result))

    def _fail(self, address: str, message: str, pending: dict[str, None], seconds: float = 0.0) -> None:
        message = self.explain(self.graph.nodes[address], message)
        self._end(Outcome(address, State.FAILED, seconds, message))
        self._skip_below(address, pending)

    def _skip_below(self, address: str, pending: dict[str, None]) -> None:
        for below in downstream(self.graph.nodes, address, list(pending)):
            del pending[below]
            self._end(Outcome(below, State.SKIPPED, message=f"needs {address}, which failed"))

    def _abandon(self, running: dict, pending: dict[str, None]) -> None:
        for handle, (address, _) in running.items():
            self.dispatch.cancel(handle)
            self._end(Outcome(address, State.STOPPED, message="stopped; the next run resumes it"))
        for address in pending:
            self._end(Outcome(address, State.STOPPED, message="not started"))

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.address] = outcome
        self._tell("ended", outcome)

    def _tell(self, what: str, *values: Any) -> None:
        for observer in self.observers:
            getattr(observer, what)(*values)


def _frozen(address: str, missing: list[str]) -> str:
    return (
        f"{address} is frozen and its output is missing or was changed by hand"
        f"{' (missing inputs: ' + ', '.join(missing) + ')' if missing else ''}. A frozen stage never runs by itself: "
        "get its output back with `git checkout`, or make it anew with `tessera rebuild-base NAME`."
    )


def _reason(error: Exception) -> str:
    name = type(error).__name__
    text = str(error)
    if name in ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError"):
        return f"its worker died again and again ({name}): {text.splitlines()[0] if text else ''}"
    return text if text.startswith(name) or isinstance(error, TesseraError) else f"{name}: {text}"
