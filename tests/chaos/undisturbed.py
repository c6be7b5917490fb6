"""The workspace that is disturbed: one paper, thirty stages, fourteen of them trainings with checkpoints.

    data/markov -> 2 arms x 7 seeds: train -> evaluate -> judge            1 + 14 + 14 + 1 = 30 stages

Everything is real: the training loop, its checkpoints, the stage runner, DVC, and through the command line Ray,
Prefect and MLflow. Only the network is small.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import workspace
import yaml

STUDIES = Path(__file__).resolve().parent / "studies"
PAPER = "chaos"
SEEDS = 7
STAGES = 30


@dataclass(frozen=True)
class Undisturbed:
    """What a disturbed run is compared with.

    Attributes:
        before: The workspace as committed, before its first run.
        after: A copy of it, after one run that nothing disturbed.
    """

    before: Path
    after: Path


def make(root: Path, seeds: int = SEEDS) -> Path:
    """Make the workspace, compiled and committed.

    Args:
        root: Folder to make it in.
        seeds: Seeds of each of the two arms.

    Returns:
        The root.
    """
    root.mkdir(parents=True)
    data = yaml.safe_load((workspace.REPOSITORY / "params" / "data.yaml").read_text())
    workspace.write(root, "params/data.yaml", yaml.safe_dump({"markov": data["markov"]}, sort_keys=False))
    workspace.write(root, "params/bases.yaml", "{}\n")
    workspace.write(root, f"params/{PAPER}/paper.yaml", _paper(seeds))
    workspace.write(root, "pyproject.toml", "[project]\nname = 'chaos'\nversion = '0'\n")
    ignored = ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n__pycache__/\n*.db\n*.db-*\n"
    workspace.write(root, ".gitignore", ignored)
    (root / ".tessera").mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package in ("components", "flows"):
        shutil.copytree(workspace.REPOSITORY / package, root / package, ignore=ignore)
    shutil.copytree(STUDIES / "chaos", root / "flows" / "studies" / "chaos", ignore=ignore)
    workspace.command(root, "git", "init", "-q", "-b", "main")
    workspace.command(root, sys.executable, "-m", "dvc", "init", "-q")
    workspace.command(root, sys.executable, "-m", "flows.cli", "sync", timeout=300)
    workspace.commit(root, "start")
    return root


def process(root: Path, *words: str, timeout: float = 600, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this folder, or of the code, in a workspace and in a process of its own: `-m here`."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=environment(root) | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def environment(root: Path) -> dict[str, str]:
    """Return the variables of a process in a workspace: its own code first, and its own index of DVC."""
    paths = [root, STUDIES.parent, STUDIES.parents[1] / "support"]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "PATH": programs,
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_SITE_CACHE_DIR": str(root / ".tessera" / "site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "COLUMNS": "200",
    }


def copy(source: Path, target: Path) -> Path:
    """Copy a workspace: its code by hard links, since nothing writes there, all else by bytes."""

    def same_code(folder: str, where: str) -> str:
        inside = Path(folder).relative_to(source).parts
        return os.link(folder, where) or where if inside[0] in ("components", "flows") else shutil.copy2(folder, where)

    shutil.copytree(source, target, symlinks=True, copy_function=same_code)
    return target


def _paper(seeds: int) -> str:
    return f"""\
slug: {PAPER}
title: "A paper to disturb"
family: text
study: chaos
story: A small network learns a table.
seeds: {list(range(seeds))}
variants:
  plain: {{canonical: true, data: [markov]}}
arms:
  narrow: {{says: few hidden units}}
  wide: {{says: more hidden units, width: 32}}
profiles:
  smoke: {{steps: 2}}
  small: {{minutes: 1}}
  full: {{steps: 1000, needs: patience}}
claims:
  - id: learns
    says: The table is learned.
    cites: Section 1
    scope: small
    tests:
      - {{metric: error, arm: wide, below: 1}}
      - {{metric: error, arm: narrow, minus: wide, below: 1}}
"""
