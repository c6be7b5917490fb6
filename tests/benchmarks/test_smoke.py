"""What the smoke profile of every paper costs: seconds of processor time for all arms of its canonical variant."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from components.training.determinism import reset
from flows.declarations.workspace import Workspace
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage

pytestmark = pytest.mark.benchmark_bar

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = Workspace.load(ROOT)


@pytest.mark.parametrize("slug", WORKSPACE.slugs)
def test_every_arm_of_a_paper_runs_in_four_seconds(slug, tmp_path, benchmark):
    paper = WORKSPACE.paper(slug)
    reset(0)  # torch imports its compiler when deterministic algorithms are first asked for
    make_stand_ins(ROOT, paper, paper.canonical, str(tmp_path))
    stages = [spec for spec in smoke_plan(paper, paper.canonical, str(tmp_path)) if spec.kind != "judge"]

    def run() -> float:
        began = time.process_time()
        for spec in stages:
            run_stage(ROOT, spec, set_values={})
        return time.process_time() - began

    seconds = benchmark.pedantic(run, rounds=1, warmup_rounds=1)
    benchmark.extra_info.update(processor_seconds=seconds, stages=len(stages))
    assert seconds <= 4
