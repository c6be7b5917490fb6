"""`tessera verify`: the command around `flows.engine.verify`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.declarations.workspace import Workspace
from flows.engine.verify import run_in, verify


def verify_paper(
    root: Path, slug: str, variants: tuple[str, ...], *, console: Console, jobs: int | None = None
) -> bool:
    """Rerun variants of a paper from the last commit in clean workspaces and compare.

    Args:
        root: The workspace.
        slug: The paper.
        variants: Variants to verify; empty for all that have committed results.
        console: Where the findings are printed.
        jobs: Stages at once.

    Returns:
        Whether every variant was confirmed.
    """
    paper = Workspace.load(root).paper(slug)
    if not variants:
        variants = tuple(
            name for name in paper.variants if (root / "results" / slug / name / "verdicts.json").is_file()
        )

    def run(workspace: Path, paper_slug: str, variant: str) -> None:
        words = ["-m", "flows.cli", "reproduce", paper_slug, "--variant", variant]
        run_in(workspace, [*words, *(["--jobs", str(jobs)] if jobs else [])])

    confirmed = True
    for variant in variants or (paper.canonical,):
        console.print(f"verifying {slug} / {variant}: every stage runs again from the last commit ...")
        report = verify(root, slug, variant, run=run)
        for line in report.lines():
            console.print(line, markup=False)
        confirmed &= report.passed
    return confirmed
