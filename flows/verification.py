"""`tessera verify`: which papers still give their committed numbers, and which moved.

Every variant is rerun by itself in a clean workspace (see `flows.engine.verify`). What came out is added to
`results/<slug>/verifications.jsonl` and summed up at the end; a variant whose rerun fails does not stop the others.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import TesseraError, did_you_mean
from flows.declarations.paper import Paper
from flows.declarations.workspace import Workspace
from flows.engine.verify import RESULTS, RerunFailed, VerifyReport, head, run_in, verify
from flows.ledger import verified
from flows.ledger.results import read_verdicts
from flows.ledger.verified import State, Verification

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLOURS: Mapping[State, str] = {"confirmed": "green", "moved": "red", "failed": "red"}
_FAILURE_LETTERS = 500


class NothingVerifiable(TesseraError):
    """No paper of the selection has results that could be verified."""


@dataclass(frozen=True)
class Target:
    """One variant of a paper that can be verified.

    Attributes:
        slug: The paper.
        variant: Its variant.
        minutes: What its stages took when its numbers were made; None where that is not recorded.
        last: Its last verification in words.
    """

    slug: str
    variant: str
    minutes: float | None
    last: str


def targets(root: Path, slugs: Iterable[str], variants: Sequence[str] = ()) -> list[Target]:
    """Return what can be verified of the given papers: variants with results, or those that are named.

    Raises:
        NothingVerifiable: A named variant does not exist, or nothing is left.
    """
    workspace = Workspace.load(root)
    papers = [workspace.paper(slug) for slug in slugs]
    known = {name for paper in papers for name in paper.variants}
    for name in variants:
        if name not in known:
            raise NothingVerifiable(f"No paper named here has a variant {name!r}.{did_you_mean(name, known)}")
    found = [target for paper in papers for target in _targets_of(workspace.root, paper, variants)]
    if not found:
        listed = ", ".join(paper.slug for paper in papers) or "this workspace"
        raise NothingVerifiable(
            f"{listed}: there are no results to verify; run `tessera reproduce` and commit its results first."
        )
    return found


def _targets_of(root: Path, paper: Paper, variants: Sequence[str]) -> Iterable[Target]:
    history = verified.read(root, paper.slug)
    for name in paper.variants:
        verdicts = read_verdicts(root / RESULTS / paper.slug / name)
        if verdicts is not None and (not variants or name in variants):
            last = verified.standing(history.get(name), verdicts)
            yield Target(paper.slug, name, verdicts.get("minutes"), last)


def verify_papers(
    root: Path, chosen: Sequence[Target], *, console: Console, jobs: int | None = None, against: Path = RESULTS
) -> list[tuple[Target, Verification]]:
    """Rerun variants of papers from the last commit, each in a clean workspace, compare, and note what came out.

    Args:
        root: The workspace.
        chosen: What to verify.
        console: Where the findings are printed.
        jobs: Stages at once.
        against: Folder with the numbers to compare with (see `flows.engine.verify.verify`).

    Returns:
        The outcome of every target.

    Raises:
        WorkspaceFailed: The workspace is no git checkout, or no copy of it can be made.
        NothingToVerify: Results are there, but not committed.
    """

    def run(workspace: Path, slug: str, variant: str) -> None:
        words = ["-m", "flows.cli", "reproduce", slug, "--variant", variant]
        run_in(workspace, [*words, *(["--jobs", str(jobs)] if jobs else [])])

    commit = head(root)
    found = []
    for target in chosen:
        console.print(f"verifying {target.slug} / {target.variant}: every stage runs again from the last commit ...")
        try:
            report = verify(root, target.slug, target.variant, run=run, against=against)
        except RerunFailed as error:
            console.print(str(error), markup=False)
            verification = _failed(root, target, commit, str(error))
        else:
            for line in report.lines():
                console.print(line, markup=False)
            verification = _compared(report)
        if against != RESULTS:
            verification = dataclasses.replace(verification, against=str(against))
        verified.write(root, target.slug, target.variant, verification)
        found.append((target, verification))
    return found


def _compared(report: VerifyReport) -> Verification:
    differences = [str(difference) for difference in report.comparison.outside]
    if report.level == "bit-exact":
        differences += [f"output of stage {stage} differs" for stage in report.different_stages]
    return Verification(
        date=_today(),
        state="confirmed" if report.passed else "moved",
        level=report.level,
        git_commit=report.commit,
        results=report.results,
        says=report.lines()[0],
        metrics=report.comparison.compared,
        moved=tuple(differences),
        machine_class=dict(report.rerun_on or {}),
    )


def _failed(root: Path, target: Target, commit: str, words: str) -> Verification:
    verdicts = read_verdicts(root / RESULTS / target.slug / target.variant) or {}
    return Verification(_today(), "failed", "", commit, verdicts.get("git_commit", ""), words[-_FAILURE_LETTERS:])


def _today() -> str:
    return datetime.date.today().isoformat()


def summary(outcomes: Sequence[tuple[Target, Verification]]) -> Table:
    """Return what came out as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("paper", "variant", "state", "metrics", "moved", "compared"):
        table.add_column(column, overflow="fold")
    for target, found in outcomes:
        metrics, moved = (str(found.metrics), str(len(found.moved))) if found.state != "failed" else ("", "")
        state = Text(found.state, style=_COLOURS[found.state])
        table.add_row(target.slug, target.variant, state, metrics, moved, found.level)
    return table


def counted(outcomes: Sequence[tuple[Target, Verification]]) -> str:
    """Sum the outcomes up: `3 confirmed, 1 moved`."""
    states = [found.state for _, found in outcomes]
    counts = [f"{states.count(state)} {state}" for state in _COLOURS if state in states]
    return ", ".join(counts)


def plan(chosen: Sequence[Target]) -> Table:
    """Return what would be verified as a table for the terminal."""
    from rich.table import Table

    table = Table("paper", "variant", "last verification", "minutes", box=None, header_style="bold", pad_edge=False)
    for target in chosen:
        minutes = "" if target.minutes is None else f"{target.minutes:.1f}"
        table.add_row(target.slug, target.variant, target.last, minutes)
    return table
