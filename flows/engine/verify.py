"""Reruns a paper in a clean temporary workspace and compares what comes out with what is committed.

    HEAD ─clone─> workspace ─┬─ data: copied where equal to dvc.lock, else made anew
                             ├─ DVC cache: empty, so that nothing can be restored instead of run
                             └─ results of the variant: removed, so that the judge must write them
    rerun ─> results/<slug>/<variant>/ ─ compare ─ what HEAD holds

On the machine class that made the results every value and every stage output must be equal bit for bit; on another,
every metric must lie inside what the recorded seeds let one expect (see `comparison`).
"""

from __future__ import annotations

import configparser
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TesseraError, did_you_mean
from flows.declarations.paper import Paper
from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.comparison import Comparison, compare_by_seeds, compare_exactly

Rerun = Callable[[Path, str, str], None]
"""Runs every stage of (workspace, slug, variant), in a fresh process, so that HEAD's code runs and not this one's."""

MACHINE_CLASS = ("architecture", "instruction_set", "threads", "torch", "numpy", "blas", "gpu")
"""The keys of `components.training.determinism.machine_class` in what a judge records of its machines."""

OWN_RECORDS = frozenset({"MLFLOW_TRACKING_URI", "PYTHONPATH", "RAY_ADDRESS", "TESSERA_REMOTE"})
"""Variables that would let a verification see other records, code or machines than its own workspace's."""

RESULTS = Path("results")
_LOG_LINES = 30


class NothingToVerify(TesseraError):
    """The commit holds no results of this paper and variant."""


class WorkspaceFailed(TesseraError):
    """The temporary workspace could not be made."""


class RerunFailed(TesseraError):
    """The stages could not be run to their end in the temporary workspace."""

    exit_code = 1


@dataclass(frozen=True)
class VerifyReport:
    """What verifying one variant of a paper came to.

    Attributes:
        paper: Slug.
        variant: Variant.
        commit: Commit that was verified.
        level: "bit-exact" or "seeds".
        recorded_on: Machine class that made the results; None where none is recorded, or there were several.
        rerun_on: Machine class of the rerun, likewise.
        comparison: The metrics.
        stages: Number of stage outputs whose hash was recorded.
        different_stages: Stages whose output has another hash than recorded; they count at the bit-exact level.
        copied_data: Data sets that were copied, being equal to dvc.lock; the others were made anew.
        uncommitted: Whether the checkout has changes, which were not verified.
        seconds: Wall time.
        results: Commit of the judge's run whose numbers were compared with; "" where it is not recorded.
    """

    paper: str
    variant: str
    commit: str
    level: str
    recorded_on: Mapping[str, Any] | None
    rerun_on: Mapping[str, Any] | None
    comparison: Comparison
    stages: int
    different_stages: tuple[str, ...]
    copied_data: tuple[str, ...]
    uncommitted: bool
    seconds: float
    results: str = ""

    @property
    def passed(self) -> bool:
        """Whether the rerun confirms what is committed."""
        exact = self.level != "bit-exact" or not self.different_stages
        return exact and not self.comparison.outside and self.comparison.compared > 0

    def lines(self) -> list[str]:
        """Say in words what was compared, how sharply, and every difference."""
        found = self.comparison
        same = "the same machine class" if self.level == "bit-exact" else "another machine class"
        how = "bit for bit" if self.level == "bit-exact" else "inside what the recorded seeds let one expect"
        words = "confirmed" if self.passed else "NOT confirmed"
        said = [
            f"{self.paper} / {self.variant} at {self.commit[:12]}: {words} ({found.compared} metrics, {how}; {same} as "
            f"recorded; {self.seconds / 60:.1f} minutes)"
        ]
        if self.level == "seeds":
            said += [f"machine: {change}" for change in _changes(self.recorded_on, self.rerun_on)]
        if not math.isnan(found.resolution):
            said.append(f"a shift of {found.resolution:.1f} standard deviations over seeds would have been noticed")
        if self.level == "bit-exact":
            said += [f"output of stage {stage} differs" for stage in self.different_stages]
        elif self.stages:
            equal = self.stages - len(self.different_stages)
            said.append(f"{equal} of {self.stages} stage outputs are equal bit for bit all the same")
        said += [str(difference) for difference in found.outside]
        said += [f"undecided: {difference}" for difference in found.undecided]
        if self.uncommitted:
            said.append("the checkout has changes that are not committed; they were not verified")
        return said


def verify(root: Path, slug: str, variant: str | None = None, *, run: Rerun, against: Path = RESULTS) -> VerifyReport:
    """Rerun one variant of a paper from the last commit and compare.

    Args:
        root: Workspace, the top of a git checkout.
        slug: Paper.
        variant: Variant; None for the canonical one.
        run: Runs the stages; must use a fresh process (see `run_in`).
        against: Folder that holds the numbers to compare with, as <slug>/<variant>/metrics.parquet. Inside the
            workspace what is committed there counts, elsewhere what lies there.

    Raises:
        NothingToVerify: The commit has no results for this variant.
        WorkspaceFailed: No copy of the commit could be made.
        RerunFailed: A stage failed, or the judge wrote nothing.
    """
    began = time.monotonic()
    root = root.resolve()
    commit = head(root)
    # What earlier verifications noted is no change of what is verified.
    others = (".", ":(exclude)results/*/verifications.jsonl")
    uncommitted = bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *others).strip())
    with tempfile.TemporaryDirectory(prefix="tessera-verify-") as folder:
        clean = Path(folder).resolve() / "workspace"
        _clone(root, clean, commit)
        declared = Workspace.load(clean)
        paper = declared.paper(slug)
        variant = variant or paper.canonical
        if variant not in paper.variants:
            raise NothingToVerify(
                f"NothingToVerify: {slug} has no variant {variant!r}.{did_you_mean(variant, paper.variants)}"
            )
        results = clean / RESULTS / slug / variant
        folder = root / against
        inside = folder.resolve().is_relative_to(root)
        expected = (clean / folder.resolve().relative_to(root) if inside else folder) / slug / variant
        recorded = _read_results(expected)
        if recorded is None:
            where = f"commit {commit[:12]} has no" if inside else "there is no"
            raise NothingToVerify(
                f"NothingToVerify: {where} {against / slug / variant}/metrics.parquet. Run `tessera reproduce {slug}` "
                "and commit its results first."
            )
        shutil.rmtree(results, ignore_errors=True)
        copied = _copy_data(root, clean, _data_of(declared, slug, variant))
        run(clean, slug, variant)
        rerun = _read_results(results)
        if rerun is None:
            raise RerunFailed(f"RerunFailed: the rerun of {slug} / {variant} ended without writing its results.")
        seconds = time.monotonic() - began
        return _report(paper, variant, commit, recorded, rerun, copied, uncommitted, seconds)


def head(root: Path) -> str:
    """Return the commit that a verification reruns.

    Raises:
        WorkspaceFailed: The folder is no git checkout with a commit.
    """
    return _git(root, "rev-parse", "HEAD").strip()


def run_in(workspace: Path, arguments: Sequence[str]) -> None:
    """Run `python ARGUMENTS` in a workspace, with that workspace's code and records of its own.

    Raises:
        RerunFailed: It ended with an error; the message carries the end of its output.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OWN_RECORDS}
    if mirror := environment.get("TESSERA_MIRROR"):
        environment["TESSERA_MIRROR"] = str(Path(mirror).resolve())
    output = workspace / ".tessera" / "verify.log"
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as log:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=workspace,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode != 0:
        tail = "\n".join(output.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise RerunFailed(
            f"RerunFailed: `python {' '.join(arguments)}` ended with exit code {ended.returncode} in a clean checkout. "
            f"The end of its output:\n{tail}"
        )


@dataclass(frozen=True)
class _Results:
    metrics: Any
    machine: Mapping[str, Any] | None
    stages: Mapping[str, str]
    commit: str


def _read_results(folder: Path) -> _Results | None:
    import polars as pl

    if not (folder / "metrics.parquet").is_file():
        return None
    verdicts = {}
    if (folder / "verdicts.json").is_file():
        verdicts = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    # Read now: the folder is removed before the rerun.
    metrics = pl.read_parquet((folder / "metrics.parquet").read_bytes())
    machine = machine_class(verdicts.get("machine") or {})
    return _Results(metrics, machine, verdicts.get("stages") or {}, verdicts.get("git_commit") or "")


def machine_class(machine: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what decides the last bits; None where it is not recorded or the stages ran on machines that differ."""
    found = {name: machine.get(name) for name in MACHINE_CLASS}
    # The judge joins the values of several machines.
    if None in found.values() or any(" / " in str(value) for value in found.values()):
        return None
    return found


def _report(
    paper: Paper,
    variant: str,
    commit: str,
    recorded: _Results,
    rerun: _Results,
    copied: list[str],
    uncommitted: bool,
    seconds: float,
) -> VerifyReport:
    same_class = recorded.machine is not None and recorded.machine == rerun.machine
    if same_class:
        comparison = compare_exactly(recorded.metrics, rerun.metrics, paper.clocks)
    else:
        comparison = compare_by_seeds(recorded.metrics, rerun.metrics)
    # What reserves its whole node measures time, and its output is not expected to be the same.
    timed = {spec.name for spec in plan_stages(paper, variant, "small") if spec.resources.get("exclusive")}
    names = (recorded.stages.keys() | rerun.stages.keys()) - timed
    return VerifyReport(
        paper=paper.slug,
        variant=variant,
        commit=commit,
        level="bit-exact" if same_class else "seeds",
        recorded_on=recorded.machine,
        rerun_on=rerun.machine,
        comparison=comparison,
        stages=len(recorded.stages),
        different_stages=tuple(sorted(name for name in names if recorded.stages.get(name) != rerun.stages.get(name))),
        copied_data=tuple(copied),
        uncommitted=uncommitted,
        seconds=seconds,
        results=recorded.commit,
    )


def _changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """Say what differs between two machine classes."""
    if before is None or after is None:
        return [f"the {'recorded results' if before is None else 'rerun'} came from no single known machine class"]
    return [f"{name} was {before[name]!r}, is {after[name]!r}" for name in before if before[name] != after[name]]


def _clone(root: Path, clean: Path, commit: str) -> None:
    # A shared clone reads the objects of the checkout and, unlike a worktree, writes nothing into it.
    _git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(clean))
    _git(clean, "checkout", "--quiet", "--detach", commit)
    if (clean / ".dvc").is_dir():
        _isolate(clean / ".dvc")


def _isolate(folder: Path) -> None:
    """Give DVC an empty cache and no remote, from which an output could be fetched instead of made."""
    config = configparser.ConfigParser()
    config.read(folder / "config", encoding="utf-8")
    for section in config.sections():
        if "remote" in section:
            config.remove_section(section)
    if config.has_section("core"):
        config.remove_option("core", "remote")
    with (folder / "config").open("w", encoding="utf-8") as file:
        config.write(file)
    # A cache that the user shares among projects stands in a global file, which the local one overrides.
    (folder / "config.local").write_text(f"[cache]\n    dir = {folder / 'cache'}\n", encoding="utf-8")


def _data_of(workspace: Workspace, slug: str, variant: str) -> list[str]:
    """Return the data sets that a variant reads, those of its bases included."""
    declared = workspace.paper(slug).variants[variant]
    names, bases, seen = list(declared.data), list(declared.bases), set()
    while bases:
        base = bases.pop()
        if base not in seen:
            seen.add(base)
            names += workspace.base(base).data
            bases += workspace.base(base).bases
    return sorted(set(names))


def _copy_data(root: Path, clean: Path, names: Sequence[str]) -> list[str]:
    """Copy data sets that are there and, in the copy, equal to dvc.lock; return their names."""
    present = [name for name in names if (root / "data" / name).is_dir()]
    if not present or not (clean / "dvc.lock").is_file():
        return []
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    copied = []
    repo = Repo(str(clean))
    try:
        for name in present:
            target = clean / "data" / name
            shutil.copytree(root / "data" / name, target)
            try:
                outputs = repo.stage.load_one(str(clean / "dvc.yaml"), f"data-{name}").outs
                different = any(output.changed_checksum() for output in outputs)
                if not different:
                    # An output that no cache holds counts as changed.
                    for output in outputs:
                        output.commit(relink=False)
            except DvcException as error:
                raise WorkspaceFailed(
                    f"WorkspaceFailed: dvc.yaml of this commit has no usable stage data-{name}: {error}. Run "
                    "`tessera sync` and commit what it writes."
                ) from error
            if different:
                shutil.rmtree(target)
                continue
            for file in target.rglob("*"):
                if file.is_file():
                    file.chmod(0o444)
            copied.append(name)
    finally:
        repo.close()
    return copied


def _git(folder: Path, *arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        ).stdout
    except FileNotFoundError as error:
        raise WorkspaceFailed("WorkspaceFailed: git is not installed; verifying needs it.") from error
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise WorkspaceFailed(
            f"WorkspaceFailed: git {arguments[0]} failed in {folder}: {said}. Verifying needs a git checkout with at "
            "least one commit."
        ) from error
