"""`tessera clean`: removes what can be made again, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.workspace_lock import command_line, workspace_lock

REMADE = ("site", ".tessera/smoke", ".tessera/prefect", ".tessera/grimp", "runs/.try", ".pytest_cache", ".benchmarks")


def clean_workspace(root: Path, *, orphans: bool) -> list[str]:
    """Remove caches, partial outputs and explorations.

    Args:
        root: The workspace.
        orphans: Also remove run directories that no declared stage writes any more.

    Returns:
        What was removed, one line each.

    Raises:
        WorkspaceBusy: A run is going on.
    """
    with workspace_lock(root / ".tessera" / "lock", command_line()):
        doomed = [root / name for name in REMADE if (root / name).exists()]
        runs = root / "runs"
        doomed += sorted(runs.glob("**/.run.*.writing")) + sorted(runs.glob("**/run-checkpoint"))
        if orphans:
            doomed += _orphans(root)
        for path in doomed:
            shutil.rmtree(path)
    return [f"removed {path.relative_to(root)}" for path in doomed] or ["nothing to remove"]


def _orphans(root: Path) -> list[Path]:
    workspace = Workspace.load(root)
    known = {
        (root / spec.output).parent
        for slug in workspace.slugs
        for variant in workspace.paper(slug).variants
        for profile in ("small", "full")
        if profile in workspace.paper(slug).profiles
        for spec in plan_stages(workspace.paper(slug), variant, profile)
    }
    found = [path.parent for path in (root / "runs").glob("*/*/**/s*/run") if path.is_dir()]
    return sorted(set(found) - known)
