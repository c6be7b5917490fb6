"""`tessera try`: a paper with other values, to explore; tracked apart from the rest, judged by nobody."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from components.errors import TesseraError, did_you_mean
from flows.declarations.paper import Paper
from flows.declarations.stages import StageSpec, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.execution import GOOD, Observer, Outcome, State
from flows.reproduction import SPOOL, STATE_FOLDER, check, stage_record
from flows.stage import git_commit
from flows.untracked import run_untracked


class ExplorationFailed(TesseraError):
    """An exploration cannot start, or one of its stages failed."""


def explore(
    root: Path,
    slug: str,
    *,
    variant: str | None,
    values: Mapping[str, Any],
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    console: Console,
    jobs: int | None = None,
    address: str | None = None,
) -> Path:
    """Run arms of a paper with other values; never judged, never in DVC.

    Args:
        root: The workspace.
        slug: The paper.
        variant: Data variant; None for the canonical one.
        values: Changed values: "arms.ARM.KEY" for one arm, "KEY" for all.
        arms: Arms to run; empty for those that `values` names, or all.
        seeds: Seeds; empty for the first of each arm.
        console: Where progress is shown.
        jobs: Stages at once.
        address: Ray cluster; None starts one.

    Returns:
        The folder that holds the runs.

    Raises:
        DeclarationError: A key or value is wrong.
        ExplorationFailed: An arm does not exist, data have not been made yet, or a stage failed.
    """
    workspace = Workspace.load(root)
    check(workspace, [slug])
    paper = workspace.paper(slug)
    under = f"runs/.try/{slug}-{uuid.uuid4().hex[:8]}"
    specs = _specs(workspace, paper, variant or paper.canonical, values, arms, seeds, under)
    _require_data(root, specs, slug)
    watcher = _Watcher(root, workspace, {f"{spec.paper}:{spec.name}": spec for spec in specs}, values)
    outcomes = run_untracked(
        root,
        specs,
        under=lambda spec: under,
        console=console,
        set_values=values,
        jobs=jobs,
        address=address,
        observers=(watcher,),
    )
    watcher.finish()
    failed = [outcome for outcome in outcomes.values() if outcome.state not in GOOD]
    if failed:
        raise ExplorationFailed("\n".join(f"{outcome.address}: {outcome.message}" for outcome in failed))
    console.print(_table(root, specs))
    console.print(f"runs: {under} (removed by `tessera clean`); compare them with: mlflow ui")
    return root / under


def _specs(
    workspace: Workspace,
    paper: Paper,
    variant: str,
    values: Mapping[str, Any],
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    under: str,
) -> list[StageSpec]:
    named = tuple(dict.fromkeys(key.split(".")[1] for key in values if key.startswith("arms.") and key.count(".") > 1))
    chosen = arms or named or tuple(paper.arms_of(variant))
    for arm in chosen:
        if arm not in paper.arms:
            raise ExplorationFailed(f"{arm!r} is no arm of {paper.slug}.{did_you_mean(arm, paper.arms)}")
    wanted = {(arm, seed) for arm in chosen for seed in seeds or paper.seeds_of(variant, arm)[:1]}
    for arm, seed in sorted(wanted):
        if arm not in paper.arms_of(variant):
            raise ExplorationFailed(
                f"variant {variant} of {paper.slug} has no arm {arm}; it has {', '.join(paper.arms_of(variant))}."
            )
        if seed not in (declared := paper.seeds_of(variant, arm)):
            raise ExplorationFailed(
                f"arm {arm} of {paper.slug} has no seed {seed}; it is declared with {', '.join(map(str, declared))}."
            )
    models = {(paper.model_of(arm), seed) for arm, seed in wanted}
    specs = [
        spec
        for spec in plan_stages(paper, variant, "small", under)
        if (spec.kind == "train" and (spec.arm, spec.seed) in models)
        or (spec.kind == "evaluate" and (spec.arm, spec.seed) in wanted)
    ]
    for spec in specs:
        spec.resolve(workspace, values)  # refuses a wrong key or value before anything runs
    return specs


def _require_data(root: Path, specs: list[StageSpec], slug: str) -> None:
    shared = {path for spec in specs for name, path in spec.inputs.items() if name.startswith(("data/", "bases/"))}
    missing = sorted(path for path in shared if not (root / path).is_dir())
    if missing:
        targets = " ".join(path.replace("/", "-").replace("bases-", "base-") for path in missing)
        raise ExplorationFailed(
            f"{', '.join(missing)} must be made first: run `tessera reproduce {slug}` once, or `dvc repro {targets}`."
        )


class _Watcher(Observer):
    """Tells MLflow of each stage, under the study's exploratory experiment."""

    def __init__(
        self, root: Path, workspace: Workspace, specs: Mapping[str, StageSpec], values: Mapping[str, Any]
    ) -> None:
        from flows.engine.tracking import Tracker

        self._workspace = workspace
        self._specs = specs
        self._values = values
        self._tracker = Tracker(None, root / STATE_FOLDER / SPOOL, uuid.uuid4().hex, git_commit(root), root)
        self._tracker.start()

    def ended(self, outcome: Outcome) -> None:
        """Log a stage that ran."""
        if outcome.state in (State.DONE, State.FAILED):
            spec = self._specs[outcome.address]
            self._tracker.log_stage(stage_record(self._workspace, outcome, spec, self._values, exploratory=True))

    def finish(self) -> None:
        """Flush; what cannot be sent waits for the next run."""
        self._tracker.close(timeout=20.0)


def _table(root: Path, specs: list[StageSpec]) -> Table:
    table = Table("arm", "seed", "metric", "at", "value", box=None, header_style="bold", pad_edge=False)
    for spec in specs:
        if spec.kind != "evaluate":
            continue
        metrics = pl.read_parquet(root / spec.output / "metrics.parquet")
        means = metrics.group_by("metric", "at", "unit", maintain_order=True).agg(pl.col("value").mean())
        for row in means.iter_rows(named=True):
            table.add_row(spec.arm, str(spec.seed), row["metric"], row["at"], f"{row['value']:.5g} {row['unit']}")
    return table
