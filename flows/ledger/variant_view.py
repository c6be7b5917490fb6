"""What a paper's page shows of one judged variant: arms, metrics, curves, figures, cost, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from flows.declarations.paper import Arm, Paper
from flows.declarations.study import Study, StudyError, UnknownStudy, load_study
from flows.declarations.workspace import Workspace
from flows.ledger import costs, drawing, verified
from flows.ledger.costs import Cost
from flows.ledger.figures import read_figures
from flows.ledger.metric_tables import metric_tables, single_table
from flows.ledger.results import Record, read_summaries
from flows.ledger.staleness import Staleness

_MACHINE = {
    "processor": "{}",
    "gpu": "{}",
    "cores": "{} cores",
    "memory_gib": "{} GiB memory",
    "system": "{}",
    "instruction_set": "{}",
    "python": "Python {}",
    "torch": "torch {}",
}


def variant_view(
    workspace: Workspace,
    paper: Paper,
    record: Record,
    age: Staleness,
    verification: verified.Verification | None,
) -> dict[str, Any]:
    """Return what the page shows of one judged variant."""
    declared = paper.variants[record.variant]
    arms = list(paper.arms_of(record.variant))
    spent = costs.read(workspace.root, paper.slug, record.variant, record.profile)
    profile = paper.profiles.get(record.profile)
    data = declared.data if profile is None or profile.data is None else profile.data
    study = study_of(paper)
    facts, summaries = study.metrics if study else {}, read_summaries(record.directory)
    return {
        "name": record.variant,
        "role": "canonical" if declared.canonical else "demo" if declared.demo else "further evidence",
        "says": declared.says,
        "data": data,
        "profile": record.profile,
        "verdicts": record.verdicts,
        "machine": machine_words(record.verdicts["machine"]),
        "age": age,
        "arms": [_arm_view(paper, record, name, spent) for name in arms],
        "metrics": metric_tables(facts, summaries, arms),
        "single": single_table(facts, summaries, arms),
        "curves": _curve_drawings(record.directory, arms),
        "figures": read_figures(record.directory),
        "rerun": _rerun(paper, record),
        "cost": _cost_view(spent),
        "minutes": _minutes(record, spent),
        "timed": max(record.verdicts["timed_stages"], len(spent.keys() & record.verdicts["stages"].keys())),
        "verified": verified.standing(verification, record.verdicts),
        "verified_state": verification.state if verification else "",
        "verification": verification,
    }


def study_of(paper: Paper) -> Study | None:
    """Return a paper's study; None where it is not in this checkout."""
    try:
        return load_study(paper.study, paper.slug)
    except (UnknownStudy, StudyError):
        return None


def machine_words(machine: Mapping[str, Any]) -> str:
    """Spell a machine: `AMD EPYC, 2 cores, 23.5 GiB memory`."""
    return ", ".join(form.format(machine[key]) for key, form in _MACHINE.items() if machine.get(key))


def _arm_view(paper: Paper, record: Record, name: str, spent: Mapping[str, Cost]) -> dict[str, Any]:
    arm = paper.arms[name]
    seeds = paper.seeds_of(record.variant, name)
    mine = [cost for stage, cost in spent.items() if _is_of(stage, record.variant, name)]
    return {
        "name": name,
        "says": arm.says,
        "model": _model_words(arm),
        "seeds": ", ".join(map(str, seeds)),
        "settings": [f"{key} = {_plain(value)}" for key, value in arm.parameters.items()],
        "minutes": sum(cost.wall_seconds for cost in mine) / 60 / len(seeds) if mine and seeds else None,
        "memory": max((cost.peak_memory_bytes for cost in mine), default=0) / 2**30,
    }


def _is_of(stage: str, variant: str, arm: str) -> bool:
    prefixes = tuple(f"{variant}-{kind}-{arm}-s" for kind in ("train", "evaluate"))
    return any(stage.startswith(prefix) and stage.removeprefix(prefix).isdigit() for prefix in prefixes)


def _model_words(arm: Arm) -> str:
    if arm.released:
        return f"released: {arm.released}"
    if arm.uses:
        return f"model of {arm.uses}"
    return "trained here" if arm.trained else "nothing to train"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cost_view(spent: Mapping[str, Cost]) -> dict[str, Any] | None:
    """Totals and every stage; None where nothing is known."""
    if not spent:
        return None
    return {
        "minutes": sum(cost.wall_seconds for cost in spent.values()) / 60,
        "cpu_minutes": sum(cost.cpu_seconds for cost in spent.values()) / 60,
        "memory": max(cost.peak_memory_bytes for cost in spent.values()) / 2**30,
        "ended": max(cost.ended for cost in spent.values())[:10],
        "stages": {
            name: {
                "minutes": cost.wall_seconds / 60,
                "cpu_minutes": cost.cpu_seconds / 60,
                "memory": cost.peak_memory_bytes / 2**30,
            }
            for name, cost in spent.items()
        },
    }


def _minutes(record: Record, spent: Mapping[str, Cost]) -> float | None:
    """Wall time of all stages; a judge knows nothing of those that were restored for it, what is kept beside it may."""
    known = [cost for name, cost in spent.items() if name in record.verdicts["stages"]]
    if len(known) > record.verdicts["timed_stages"]:
        return sum(cost.wall_seconds for cost in known) / 60
    return record.verdicts["minutes"]


def _rerun(paper: Paper, record: Record) -> list[str]:
    commit = record.verdicts["git_commit"].partition("+")[0]
    profile = " --profile full" if record.profile == "full" else ""
    reproduce = f"tessera reproduce {paper.slug} --variant {record.variant}{profile}"
    return [*([f"git checkout {commit}"] if commit else []), reproduce]


def _curve_drawings(directory: Path, arms: list[str]) -> list[dict[str, Any]]:
    path = directory / "curves.parquet"
    if not path.is_file():
        return []
    drawings = []
    frame = pl.read_parquet(path).filter(pl.col("value").is_finite())
    for (series, unit), points in frame.group_by(["series", "unit"], maintain_order=True):
        runs = points.group_by(["arm", "seed"], maintain_order=True)
        lines = [(arm, seed, run["step"].to_list(), run["value"].to_list()) for (arm, seed), run in runs]
        lines = sorted((line for line in lines if len(line[2]) > 1), key=lambda line: _position(arms, line[0]))
        if lines:
            legend = list(dict.fromkeys(arm for arm, *_ in lines))
            drawings.append(
                {"title": series, "unit": unit, "svg": Markup(drawing.curves(series, lines, unit)), "legend": legend}
            )
    # What is minimised is looked at first.
    return sorted(drawings, key=lambda found: "loss" not in found["title"])


def _position(arms: list[str], arm: str) -> int:
    return arms.index(arm) if arm in arms else len(arms)
