"""Stages that DVC does not track, on Ray: smoke runs and explorations stand on this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.declarations.stages import StageSpec
from flows.engine.dispatch import RayDispatch
from flows.engine.display import Display
from flows.engine.execution import Execution, Observer, Outcome
from flows.engine.nodes import Node, PlainGraph
from flows.engine.supervision import Supervision
from flows.reproduction import STAGE_FUNCTION, read_result, stage_call, stopping_on_signals


def run_untracked(
    root: Path,
    specs: Iterable[StageSpec],
    *,
    under: Callable[[StageSpec], str],
    console: Console,
    set_values: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    address: str | None = None,
    observers: tuple[Observer, ...] = (),
) -> dict[str, Outcome]:
    """Run stages on Ray in dependency order, all of them, recording nothing.

    Args:
        root: The workspace.
        specs: Stages planned with the same `under`.
        under: Returns the folder, relative to the root, with which a stage was planned.
        console: Where progress is shown.
        set_values: Changed values by dotted key.
        jobs: Stages at once.
        address: Ray cluster; None starts one.
        observers: Told what happens, besides the display.
    """
    by_name = {f"{spec.paper}:{spec.name}": spec for spec in specs}
    writers = {spec.output: name for name, spec in by_name.items()}
    nodes = {
        name: Node(
            address=name,
            command=" ".join(spec.arguments),
            directory=root,
            upstream=tuple(sorted({writers[path] for path in spec.inputs.values() if path in writers})),
            outputs=(root / spec.output,),
            frozen=False,
        )
        for name, spec in by_name.items()
    }
    supervision = Supervision()
    supervision.start()
    dispatch = RayDispatch([STAGE_FUNCTION], address=address, preload=["torch", "polars", "pydantic"])
    display = Display(console, str, lambda name: root / by_name[name].log / "progress.json")
    execution = Execution(
        graph=PlainGraph(nodes),
        dispatch=dispatch,
        call=lambda node: stage_call(
            root, by_name[node.address], under=under(by_name[node.address]), set_values=set_values
        ),
        read=lambda node, value: read_result(root, value),
        jobs=jobs,
        observers=(display, *observers),
    )
    try:
        with stopping_on_signals(execution):
            return execution.run(nodes)
    finally:
        display.close()
        dispatch.close()
        supervision.close()
