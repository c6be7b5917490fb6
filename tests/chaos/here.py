"""`python -m here` in a workspace: all that `tessera reproduce` does but for Ray, Prefect, MLflow and the reaper.

Stages run in turn, in this one process, so that a fault can be tried at every place in seconds.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import undisturbed
from rich.console import Console

from flows import reproduction
from flows.declarations.workspace import Workspace
from flows.engine import orchestration, tracking
from flows.engine.dispatch import invoke
from flows.engine.graph import DvcGraph


class AtOnce:
    """Stands in for `RayDispatch`: a call has ended when `submit` returns."""

    def __init__(self, functions: list[str], **settings: Any) -> None:
        self._functions = frozenset(functions)
        self._ended: dict[int, Any] = {}

    def start(self) -> None: ...

    def wait_ready(self, timeout: float = 0.0) -> None: ...

    def slots(self) -> float:
        return 1.0

    def check(self, name: str, resources: Any) -> None: ...

    def submit(self, name: str, call: Any) -> int:
        self._ended[len(self._ended)] = invoke(self._functions, call.function, call.payload)
        return len(self._ended) - 1

    def wait(self, handles: list[int], timeout: float) -> list[int]:
        return list(handles)

    def result(self, handle: int) -> Any:
        return self._ended[handle]

    def cancel(self, handle: int) -> None: ...

    def release(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def alone() -> Iterator[None]:
    """Leave out everything that is a process of its own."""
    quiet = mock.Mock(failure=None, planned=_nothing, started=_nothing, ended=_nothing, tick=_nothing, close=_nothing)
    with (
        mock.patch.object(reproduction, "RayDispatch", AtOnce),
        mock.patch.object(reproduction, "Supervision", mock.Mock()),
        mock.patch.object(orchestration, "PrefectMirror", mock.Mock(return_value=quiet)),
        mock.patch.object(tracking, "Tracker", _Untracked),
    ):
        yield


class _Untracked:
    def __init__(self, *words: Any) -> None: ...

    def start(self) -> None: ...

    def log_stage(self, record: Any) -> None: ...

    def finish_paper(self, record: Any) -> None: ...

    def close(self, timeout: float) -> tracking.TrackingState:
        return tracking.TrackingState()


def _nothing(*words: Any) -> None: ...


def run(root: Path, **options: Any) -> tuple[reproduction.Report, str]:
    """Reproduce the paper in this process; return the report and what a person would read."""
    text = io.StringIO()
    console = Console(file=text, width=200, highlight=False, soft_wrap=True)
    selection = reproduction.Selection(papers=(undisturbed.PAPER,))
    with alone():
        report = reproduction.reproduce(root, selection, console=console, **options)
        if report.failed:
            console.print(reproduction.failures(report), markup=False)
    return report, text.getvalue()


class Stage:
    """One stage of a workspace, run again and again: the declarations are read once.

    Args:
        root: The workspace.
        address: The stage.
    """

    def __init__(self, root: Path, address: str) -> None:
        self._root, self._address = root, address
        self._selection = reproduction.Selection(papers=(undisturbed.PAPER,))
        self._workspace = Workspace.load(root)
        self._chosen = reproduction.choose(self._workspace, self._selection)
        papers = [paper for paper, _ in self._chosen]
        self._specs = reproduction.all_specs(self._workspace, papers, "small")

    def run(self) -> str:
        """Run the stage, and above it what is stale; return what a person would read of failures."""
        graph = DvcGraph(self._root)
        console = Console(file=io.StringIO())
        run = reproduction._Run(
            self._root, self._workspace, graph, self._specs, self._selection, console, None, None, None, False,
            self._chosen,
        )  # fmt: skip
        execution = run._execution([self._address], AtOnce([reproduction.STAGE_FUNCTION]), ())
        try:
            with graph.locked():
                outcomes = execution.run([self._address])
        finally:
            graph.close()
        report = reproduction.Report(outcomes, [], ran=True, seconds=0.0)
        return reproduction.failures(report) if report.failed else ""


if __name__ == "__main__":
    done, said = run(Path.cwd())
    print(said)
    sys.exit(1 if done.failed else 0)
