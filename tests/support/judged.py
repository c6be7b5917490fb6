"""Results as a judge writes them, from numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from components.metrics.tables import MetricTable
from flows.declarations.workspace import Workspace
from flows.ledger.judge import judge
from flows.ledger.recording import record
from flows.studies.context import JudgeContext

Fill = Callable[[MetricTable, str, int], None]


def judge_with(root: Path, slug: str, fill: Fill, variant: str = "plain") -> Path:
    """Let a function `(table, arm, seed)` measure every arm and seed of a variant, judge it, and record it.

    Args:
        root: The workspace.
        slug: The paper.
        fill: Adds the metrics of one run.
        variant: Its variant.

    Returns:
        The folder of the results.
    """
    workspace = Workspace.load(root)
    paper = workspace.paper(slug)
    evaluations = {}
    for arm in paper.arms_of(variant):
        for seed in paper.seeds_of(variant, arm):
            table = MetricTable()
            fill(table, arm, seed)
            run = root / "runs" / slug / variant / "evaluate" / arm / f"s{seed}" / "run"
            run.mkdir(parents=True, exist_ok=True)
            table.write(run)
            evaluations[arm, seed] = run
    output = root / "results" / slug / variant
    output.mkdir(parents=True, exist_ok=True)
    context = JudgeContext(paper, variant, "small", evaluations, {}, output)
    judge(context, {"git_commit": "b" * 40, "machine": {"processor": "a CPU"}})
    record(workspace, paper, output, "2026-11-25")
    return output
