"""Smoke runs: every arm of a paper in seconds, on generated stand-ins, judged by nobody."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from components.errors import TesseraError
from flows.declarations.paper import Paper
from flows.declarations.stages import StageSpec, plan_stages
from flows.declarations.study import python_name
from flows.declarations.workspace import Workspace
from flows.engine.execution import GOOD
from flows.reproduction import check
from flows.stage import run_stage, smoke_inputs
from flows.untracked import run_untracked


class SmokeFailed(TesseraError):
    """A smoke run failed."""

    exit_code = 1


def smoke_plan(paper: Paper, variant: str, under: str) -> list[StageSpec]:
    """Return the smoke stages of one variant, reading the stand-ins below `under`."""
    return [smoke_inputs(spec, under) for spec in plan_stages(paper, variant, "smoke", under)]


def make_stand_ins(root: Path, paper: Paper, variant: str, under: str) -> None:
    """Generate what the smoke stages of a variant read: small data sets and untrained bases with the right schema."""
    standin = importlib.import_module(f"flows.studies.{python_name(paper.study)}.standin")
    for spec in smoke_plan(paper, variant, under):
        for name, path in spec.inputs.items():
            folder = root / path
            if folder.exists() or not name.startswith(("data/", "bases/")):
                continue
            folder.mkdir(parents=True)
            make = standin.make if name.startswith("data/") else standin.make_base
            make(name.partition("/")[2], folder)


def smoke_in_process(root: Path, paper: Paper, variant: str, under: str) -> list[Path]:
    """Run every arm of a variant in this process, one stage after the other, at profile smoke.

    Args:
        root: The workspace, or any folder to write into when `under` is absolute.
        paper: The declaration.
        variant: Name of a variant.
        under: Folder for stand-ins, runs and results, relative to the root.

    Returns:
        The output directory of every stage, the judge's last.
    """
    make_stand_ins(root, paper, variant, under)
    specs = smoke_plan(paper, variant, under)
    for spec in specs:
        run_stage(root, spec, set_values={})
    return [root / spec.output for spec in specs]


def smoke_papers(root: Path, slugs: Iterable[str], *, console: Console, address: str | None = None) -> dict[str, str]:
    """Run the smoke profile of papers on Ray: seconds each, wiring only, no verdict is kept.

    Raises:
        SmokeFailed: A stage failed; the message names it and its log.
    """
    workspace = Workspace.load(root)
    slugs = list(slugs)
    check(workspace, slugs)
    under = ".tessera/smoke"
    shutil.rmtree(root / under, ignore_errors=True)
    specs: list[StageSpec] = []
    for slug in slugs:
        paper = workspace.paper(slug)
        for variant in paper.variants:
            make_stand_ins(root, paper, variant, f"{under}/{slug}")
            specs += smoke_plan(paper, variant, f"{under}/{slug}")
    outcomes = run_untracked(root, specs, under=lambda spec: f"{under}/{spec.paper}", console=console, address=address)
    failed = [outcome for outcome in outcomes.values() if outcome.state not in GOOD]
    if failed:
        raise SmokeFailed("\n".join(f"{outcome.address}: {outcome.message}" for outcome in failed))
    console.print(f"{len(slugs)} papers, {len(outcomes)} stages: the wiring holds.")
    return {name: outcome.state.value for name, outcome in outcomes.items()}
