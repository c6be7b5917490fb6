"""`tessera rebuild-base`: the only way a shared base changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console

from components.errors import TesseraError
from flows.declarations.problems import DeclarationError
from flows.declarations.stages import base_stage, data_stage
from flows.declarations.workspace import Workspace
from flows.engine.compile import sync
from flows.engine.digests import write_digests
from flows.engine.dispatch import RayDispatch
from flows.engine.display import Display
from flows.engine.execution import GOOD, Execution
from flows.engine.supervision import Supervision
from flows.engine.workspace_lock import command_line, workspace_lock
from flows.reproduction import STAGE_FUNCTION, STATE_FOLDER, read_result, stage_call, stopping_on_signals


class BaseFailed(TesseraError):
    """A base could not be trained."""

    exit_code = 1


def rebuild(root: Path, names: Sequence[str], *, console: Console, address: str | None = None) -> None:
    """Train bases anew, side by side, with what they are built from, and say whether their gates hold.

    Raises:
        UnknownBase: bases.yaml has no entry of such a name.
        DeclarationError: data.yaml or bases.yaml has errors.
        BaseFailed: A stage failed.
    """
    workspace = Workspace.load(root)
    bases = {name: workspace.base(name) for name in names}
    errors = [problem for problem in workspace.problems() if not problem.warning]
    if errors:
        raise DeclarationError(errors)
    specs = {spec.address: spec for spec in map(lambda each: data_stage(workspace, each), workspace.data)}
    specs |= {spec.address: spec for spec in map(lambda each: base_stage(workspace, each), workspace.bases)}
    targets = [base_stage(workspace, name).address for name in bases]
    with workspace_lock(root / STATE_FOLDER / "lock", command_line()):
        sync(root)
        write_digests(root)
        from flows.engine.graph import DvcGraph

        graph = DvcGraph(root, thawed=frozenset(targets))
        supervision = Supervision()
        supervision.start()
        dispatch = RayDispatch([STAGE_FUNCTION], address=address, preload=["torch", "polars", "pydantic"])
        display = Display(console, str, lambda each: root / specs[each].log / "progress.json")
        execution = Execution(
            graph=graph,
            dispatch=dispatch,
            call=lambda node: stage_call(root, specs[node.address]),
            read=lambda node, value: read_result(root, value),
            force=frozenset(targets),
            settled=frozenset({"code"}),
            observers=(display,),
        )
        try:
            with graph.locked(), stopping_on_signals(execution):
                if graph.stale("code"):
                    graph.commit("code")
                outcomes = execution.run(targets)
        finally:
            display.close()
            dispatch.close()
            supervision.close()
            graph.close()
    failed = [outcome for outcome in outcomes.values() if outcome.state not in GOOD]
    if failed:
        raise BaseFailed("\n".join(f"{outcome.address}: {outcome.message}" for outcome in failed))
    for name, base in bases.items():
        folder = root / "bases" / name
        console.print(f"{name}: bases/{name}/card.md describes it; commit bases/{name} and dvc.lock.")
        for gate in base.gates:
            value = measured(folder, gate.metric)
            holds = gate.holds(value)
            console.print(f"gate {gate.metric} = {value:.4g}: {'holds' if holds else 'FAILS; no verdict counts'}")


def measured(folder: Path, metric: str) -> float:
    """Return a base's own value of a metric, averaged over test items."""
    return float(pl.read_parquet(folder / "metrics.parquet").filter(pl.col("metric") == metric)["value"].mean())
