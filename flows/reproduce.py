"""The Prefect flow: what deployments run, on schedules and on demand.

    prefect deploy --all            # from prefect.yaml
    prefect deployment run reproduce/on-demand --param papers='["one-d-piece"]'

The command line runs the same reproduction; there Prefect joins when it is ready.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.states import Failed
from rich.console import Console

from components.errors import TesseraError
from flows import reproduction
from flows.declarations.workspace import Workspace


@flow(name="reproduce", flow_run_name="{papers} ({profile})", validate_parameters=True)
def reproduce(
    papers: list[str] | None = None,
    variants: list[str] | None = None,
    profile: str = "small",
    seeds: list[int] | None = None,
    embedded: bool = False,
    force: bool = False,
    jobs: int | None = None,
    address: str | None = None,
    remote: str | None = None,
    drift: bool = False,
    root: str = ".",
) -> Any:
    """Reproduce papers and judge their claims.

    Args:
        papers: Slugs; None for all built papers.
        variants: Only these data variants; None for all.
        profile: "smoke", "small" or "full".
        seeds: Only these seeds; nothing is judged then.
        embedded: Only variants on embedded data.
        force: Run although nothing changed.
        jobs: Stages at once.
        address: Ray cluster; None starts one on this machine.
        remote: DVC remote through which nodes that do not share the workspace get inputs and give back outputs.
        drift: Also compare the new metrics with the committed ones; the report is an artifact of the run, and a run
            whose metrics moved ends in the state Drifted.
        root: The workspace.

    Returns:
        The final state of every stage considered.

    Raises:
        RunFailed: A stage failed; the message names it, its log and what to do.
        TerminationSignal: The run was cancelled; its stages were stopped first.
    """
    folder = Path(root).resolve()
    workspace = Workspace.load(folder)
    slugs = tuple(papers) if papers else tuple(workspace.slugs)
    console = Console(highlight=False, soft_wrap=True)
    if profile == "smoke":
        from flows.smoke import smoke_papers

        return smoke_papers(folder, slugs, console=console, address=address)
    if profile not in ("small", "full"):
        raise TesseraError(f"profile {profile!r} is unknown; it is smoke, small or full.")
    selection = reproduction.Selection(
        papers=slugs,
        variants=tuple(variants or ()),
        embedded=embedded,
        profile=profile,
        seeds=tuple(seeds or ()),
        force=force,
    )
    report = reproduction.reproduce(
        folder, selection, console=console, jobs=jobs, address=address, remote=remote, in_flow=True
    )
    if report.ran:
        from flows.ledger.page import build

        build(folder, folder / "site")
    if report.stopped:
        raise TerminationSignal(signal=signal.SIGTERM)
    if report.failed:
        raise reproduction.RunFailed(reproduction.failures(report))
    if drift and (moved := _report_drift(folder, report.results)):
        return Failed(name="Drifted", message=moved)
    return {address: outcome.state.value for address, outcome in report.outcomes.items()}


def _report_drift(root: Path, results: list[Path]) -> str:
    """Show how far the metrics moved; return that in one line if any did."""
    from prefect.artifacts import create_markdown_artifact

    from flows import drift

    found = drift.drift(root, results)
    create_markdown_artifact(drift.report(found), key="drift", description=drift.summary(found))
    return drift.summary(found) if any(each.moved for each in found) else ""
