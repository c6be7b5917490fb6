"""A small paper with synthetic runs, for the judge, its history and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from components.metrics.tables import CurveTable, MetricTable
from flows.declarations.paper import Paper
from flows.studies.context import JudgeContext

PAPER = {
    "slug": "toy-paper",
    "title": "Toys & Tokens <for tests>",
    "family": "image",
    "study": "image-tokenizer",
    "story": "What a toy says.",
    "seeds": [0, 1, 2],
    "variants": {
        "shapes": {"canonical": True},
        "digits": {},
        "photos": {"demo": True, "seeds": [0]},
    },
    "arms": {
        "method": {"says": "the method"},
        "baseline": {"says": "without it"},
        "codec": {"trained": False, "seeds": [0]},
        "single": {"seeds": [0]},
        "ablation": {"uses": "single", "seeds": [0]},
    },
    "profiles": {"smoke": {}, "small": {"minutes": 1}, "full": {"needs": "a cluster"}},
    "claims": [
        {
            "id": "better",
            "says": "The method is better",
            "cites": "Table 1",
            "scope": "small",
            "tests": [{"metric": "psnr", "arm": "method", "minus": "baseline", "at": {"k": 8}, "above": 1.0}],
        }
    ],
}


@pytest.fixture
def make_paper() -> Callable[..., Paper]:
    """Build the toy paper with other claims."""

    def build(claims: list[dict] | None = None) -> Paper:
        full = [{"says": "says", "cites": "Table 1", "scope": "small"} | claim for claim in claims or []]
        return Paper.model_validate(PAPER | ({"claims": full} if claims else {}))

    return build


Fill = Callable[[MetricTable, str, int], None]


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., JudgeContext]:
    """Write runs filled by a function `(table, arm, seed)` and return the context that judges them."""

    def build(
        paper: Paper, fill: Fill, *, variant: str = "shapes", profile: str = "small", seeds: Mapping | None = None
    ) -> JudgeContext:
        evaluations, trainings = {}, {}
        for arm in paper.arms_of(variant):
            for seed in (seeds or {}).get(arm, paper.seeds_of(variant, arm)):
                table = MetricTable()
                fill(table, arm, seed)
                run = tmp_path / "runs" / paper.slug / variant / "evaluate" / arm / f"s{seed}" / "run"
                run.mkdir(parents=True, exist_ok=True)
                table.write(run)
                evaluations[arm, seed] = run
                record(run, seconds=6.0)
                model = paper.model_of(arm)
                if model is not None:
                    trained = tmp_path / "runs" / paper.slug / variant / "train" / model / f"s{seed}" / "run"
                    trained.mkdir(parents=True, exist_ok=True)
                    curves = CurveTable()
                    for step in range(451):
                        curves.add("loss", step, 1 / (step + 1))
                    curves.add("accuracy", 450, 0.5)
                    curves.write(trained)
                    record(trained, seconds=60.0)
                    trainings[arm, seed] = trained
        output = tmp_path / "results" / paper.slug / variant
        output.mkdir(parents=True, exist_ok=True)
        return JudgeContext(paper, variant, profile, evaluations, trainings, output)

    return build


def record(run: Path, *, seconds: float, machine: dict | None = None) -> None:
    """Write what the stage runner records beside a run."""
    log = run.parent / "log"
    log.mkdir(exist_ok=True)
    environment = {"wall_seconds": seconds, "machine": machine or {"processor": "a CPU", "cores": 2, "class": "x"}}
    (log / "environment.json").write_text(json.dumps(environment))
