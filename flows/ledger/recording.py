"""What a finished judge stage leaves beside its results: history, costs, and what pairs test items across papers."""

from __future__ import annotations

from pathlib import Path

from flows.declarations.paper import Paper
from flows.declarations.workspace import Workspace
from flows.ledger import costs, evidence, history, item_groups
from flows.ledger.results import read_verdicts


def record(workspace: Workspace, paper: Paper, directory: Path, date: str) -> bool:
    """Record a judged variant for later readers.

    Args:
        workspace: The workspace.
        paper: The declaration it was judged by.
        directory: Its results, `results/<slug>/<variant>` or `results/<slug>/full/<variant>`.
        date: Day of the judgement, YYYY-MM-DD.

    Returns:
        Whether a verdict, an estimate, an interval or a bar is new. Smoke runs leave nothing.

    Raises:
        HistoryError: The history holds a line that is no entry.
        ResultsError: A file of results cannot be read.
    """
    verdicts = read_verdicts(directory)
    if verdicts is None or verdicts["profile"] == "smoke":
        return False
    variant, profile = verdicts["variant"], verdicts["profile"]
    claims = {claim.id: claim for claim in paper.claims}
    tiers = {
        judged["id"]: evidence.tier(paper, claims[judged["id"]], judged["verdict"])
        for judged in verdicts["claims"]
        if judged["id"] in claims
    }
    ranked = {
        metric
        for board in workspace.leaderboards.values()
        if board.study == paper.study
        for metric in (*board.metrics, *([board.rate.metric] if board.rate and board.rate.metric else []))
    }
    folder = workspace.root / "results" / paper.slug
    with history.locked(folder):
        costs.write(workspace.root, paper, variant, profile)
        item_groups.write(workspace.root, paper, variant, profile, ranked)
    return history.append(folder, verdicts, date, tiers)
