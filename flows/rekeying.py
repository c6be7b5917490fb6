"""`tessera rekey`: keeps results whose code changed in form but not in what it computes.

For every arm whose code digest differs from the one in `dvc.lock`, the numeric fingerprint is taken twice on this
machine: with the code of the commit that the lock's digest belongs to, and with the code as it is now. Where both are
equal, the lock takes the new digest over, and `params/<slug>/rekeyed.jsonl` records both with the fingerprint.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import TesseraError
from components.training.atomic import write_bytes
from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import digest_file, sync
from flows.engine.digests import read_units, write_digests
from flows.engine.lock_text import lock_text, read_lock, spelled
from flows.engine.workspace_lock import command_line, workspace_lock


class RekeyRefused(TesseraError):
    """Some results cannot be kept: the code computes other numbers now, or the old code is not in git."""

    exit_code = 1


@dataclass(frozen=True)
class Candidate:
    """An arm whose code digest changed since its results were made.

    Attributes:
        slug: Paper.
        variant: Variant.
        arm: Arm.
        units: (unit, old digest, new digest) of its training and evaluation, where changed.
        stages: Names of the stages in dvc.lock that carry those units.
    """

    slug: str
    variant: str
    arm: str
    units: tuple[tuple[str, str, str], ...]
    stages: Mapping[str, str]


def candidates(root: Path, slug: str) -> list[Candidate]:
    """Return the arms of a paper whose recorded code digest is not the current one."""
    workspace = Workspace.load(root)
    paper = workspace.paper(slug)
    lock = _read_lock(root, slug)
    found = []
    for variant in paper.variants:
        by_arm: dict[str, dict[str, tuple[str, str]]] = {}
        stages: dict[str, dict[str, str]] = {}
        for spec in plan_stages(paper, variant, "small"):
            if spec.kind not in ("train", "evaluate") or spec.name not in lock:
                continue
            current = read_units(root, spec)[spec.unit]["code"]
            recorded = _recorded_digest(lock[spec.name], digest_file(spec), spec.unit)
            if recorded and recorded != current:
                by_arm.setdefault(spec.arm, {})[spec.unit] = (recorded, current)
                stages.setdefault(spec.arm, {})[spec.name] = spec.unit
        found += [
            Candidate(slug, variant, arm, tuple((unit, *digests) for unit, digests in units.items()), stages[arm])
            for arm, units in by_arm.items()
        ]
    return found


def rekey_papers(root: Path, slugs: Iterable[str], *, console: Console) -> None:
    """Keep what can be kept, arm by arm.

    Raises:
        RekeyRefused: For some arms the numbers differ or the old code is unknown; the others are kept all the same.
    """
    refused = []
    with workspace_lock(root / ".tessera" / "lock", command_line()):
        sync(root)
        write_digests(root)
        for slug in slugs:
            found = candidates(root, slug)
            if not found:
                console.print(f"{slug}: the code of every recorded result is current.")
            for candidate in found:
                refused += _rekey(root, candidate, console)
    if refused:
        raise RekeyRefused(
            "\n".join(refused) + "\nThese results are stale: run `tessera reproduce` for them, or undo the change."
        )


def _rekey(root: Path, candidate: Candidate, console: Console) -> list[str]:
    name = f"{candidate.slug} {candidate.variant} {candidate.arm}"
    olds = {old for _, old, _ in candidate.units}
    commit = _commit_with(root, candidate.slug, olds)
    if commit is None:
        return [f"{name}: no commit holds the code that made its results (digests {', '.join(sorted(olds))})."]
    with tempfile.TemporaryDirectory(prefix="tessera-rekey-") as folder:
        before = _fingerprint(_checkout(root, commit, Path(folder)), candidate)
    after = _fingerprint(root, candidate)
    if before != after:
        return [f"{name}: 20 steps and an evaluation give other numbers than at commit {commit[:12]}."]
    _accept(root, candidate)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "variant": candidate.variant,
        "arm": candidate.arm,
        "commit": commit,
        "fingerprint": after,
        "units": [{"unit": unit, "from": old, "to": new} for unit, old, new in candidate.units],
    }
    history = root / "params" / candidate.slug / "rekeyed.jsonl"
    kept = history.read_bytes() if history.is_file() else b""
    write_bytes(history, kept + json.dumps(record).encode() + b"\n")
    console.print(f"{name}: same numbers, results kept (fingerprint {after[:12]}).")
    return []


def _commit_with(root: Path, slug: str, digests: set[str]) -> str | None:
    """Return the newest commit whose digest file of the paper holds all the digests."""
    path = f"params/{slug}/digests.json"
    for commit in _git(root, "log", "--format=%H", "--", path).split():
        shown = subprocess.run(["git", "show", f"{commit}:{path}"], cwd=root, capture_output=True, text=True)
        if shown.returncode == 0 and all(digest in shown.stdout for digest in digests):
            return commit
    return None


def _checkout(root: Path, commit: str, folder: Path) -> Path:
    archive = folder / "code.tar"
    _git(root, "archive", "-o", str(archive), commit, "components", "flows", "params", "pyproject.toml")
    tree = folder / "tree"
    with tarfile.open(archive) as bundle:
        bundle.extractall(tree, filter="data")
    return tree


def _fingerprint(tree: Path, candidate: Candidate) -> str:
    # A fresh process that finds the tree's own packages first: code of two versions must not meet in one process.
    words = ["-m", "flows.fingerprint", candidate.slug, candidate.variant, candidate.arm]
    done = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True)
    if done.returncode != 0:
        raise RekeyRefused(
            f"{candidate.slug} {candidate.arm}: the fingerprint could not be taken in {tree}:\n{done.stderr[-2000:]}"
        )
    return done.stdout.split()[-1]


def _accept(root: Path, candidate: Candidate) -> None:
    path = root / "params" / candidate.slug / "dvc.lock"
    lock = read_lock(path)
    new = {unit: digest for unit, _, digest in candidate.units}
    for stage, unit in candidate.stages.items():
        for values in lock["stages"][stage]["params"].values():
            if f"{unit}.code" in values:
                values[f"{unit}.code"] = new[unit]
    write_bytes(path, lock_text(spelled(*stage) for stage in lock["stages"].items()).encode())


def _read_lock(root: Path, slug: str) -> dict[str, Any]:
    path = root / "params" / slug / "dvc.lock"
    return read_lock(path)["stages"] if path.is_file() else {}


def _recorded_digest(stage: Mapping[str, Any], file: str, unit: str) -> str:
    return str(stage.get("params", {}).get(file, {}).get(f"{unit}.code", ""))


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout
