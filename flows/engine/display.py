"""Progress of a run on the terminal: one bar for the run, one for each running stage; plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows.engine.execution import Observer, Outcome, State

LINE_SECONDS = 30.0

MARKS = {
    State.DONE: "[green]done[/green]",
    State.CACHED: "[cyan]cached[/cyan]",
    State.FAILED: "[red]failed[/red]",
    State.SKIPPED: "[yellow]skipped[/yellow]",
    State.STOPPED: "[yellow]stopped[/yellow]",
}


class Display(Observer):
    """Shows a run.

    Args:
        console: Where to show it; bars only where it is a terminal.
        label: Short name of a stage for people.
        progress_file: Where a running stage writes how far it is (JSON: done, total, further values), or None.
    """

    def __init__(
        self,
        console: Console,
        label: Callable[[str], str],
        progress_file: Callable[[str], Path | None] = lambda address: None,
    ) -> None:
        self._console = console
        self._label = label
        self._progress_file = progress_file
        self._bars: Progress | None = None
        self._overall = None
        self._tasks: dict[str, int] = {}
        self._total = 0
        self._finished = 0
        self._last_line = time.monotonic()

    def planned(self, stale: list[str], clean: list[str]) -> None:
        """Open the overall bar."""
        self._total = len(stale)
        if not stale:
            return
        self._console.print(f"{len(stale)} stages to run, {len(clean)} up to date")
        if self._console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
            self._overall = self._bars.add_task("[bold]all stages[/bold]", total=len(stale), note="")

    def started(self, address: str) -> None:
        """Open a bar for a stage."""
        if self._bars is not None:
            self._tasks[address] = self._bars.add_task(self._label(address), total=None, note="")

    def ended(self, outcome: Outcome) -> None:
        """Close its bar and leave a line."""
        if outcome.state is State.CLEAN and outcome.address not in self._tasks and not self._total:
            return
        if self._bars is not None and outcome.address in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.address))
        if outcome.state is State.CLEAN:
            return
        self._finished += 1
        if self._bars is not None:
            self._bars.update(self._overall, completed=self._finished)
        took = f" {outcome.seconds:.1f} s" if outcome.seconds else ""
        place = f"[{self._finished}/{self._total}]".replace("[", r"\[")
        self._console.print(f"{place} {MARKS[outcome.state]} {self._label(outcome.address)}{took}", highlight=False)
        if outcome.state in (State.FAILED, State.SKIPPED) and outcome.message:
            self._console.print(f"      {outcome.message}", markup=False, highlight=False)

    def tick(self, running: list[str]) -> None:
        """Take over how far the running stages are."""
        if self._bars is None and time.monotonic() - self._last_line < LINE_SECONDS:
            return
        for address in running:
            state = _read(self._progress_file(address))
            if state is None:
                continue
            note = " ".join(f"{key} {value:.4g}" for key, value in state.items() if key not in ("done", "total"))
            if self._bars is not None and address in self._tasks:
                self._bars.update(self._tasks[address], completed=state["done"], total=state["total"], note=note)
            elif self._bars is None:
                self._console.print(
                    f"      {self._label(address)}: {state['done']}/{state['total']} {note}", highlight=False
                )
        if self._bars is None:
            self._last_line = time.monotonic()

    def close(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _read(path: Path | None) -> dict | None:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
