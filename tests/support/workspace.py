"""Small workspaces for tests: papers of a toy study whose stages take no time.

The toy study and the toy recipe for bases lie beside this file, in `toy`. In this process they are found because
their folder is added to the path of the package `flows.studies`; a workspace made with `code=True` holds a copy of the
code with the toy study inside, so that `python -m flows.stage` works in it and its code can be edited.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import flows.studies
import flows.studies.bases

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = Path(__file__).resolve().parent / "toy"


def register_toy_study() -> None:
    """Make `flows.studies.toy` and the recipe `toy_constant` importable in this process."""
    for package, folder in ((flows.studies, TOY / "studies"), (flows.studies.bases, TOY / "bases")):
        if str(folder) not in package.__path__:
            package.__path__.append(str(folder))


def make_workspace(
    root: Path,
    papers: int = 2,
    arms: int = 2,
    seeds: int = 3,
    variants: int = 1,
    bases: int = 1,
    code: bool = False,
    git: bool = False,
    dvc: bool = False,
    **parameters: Any,
) -> Path:
    """Make a workspace of toy papers.

    Args:
        root: Folder to make it in; created where it is missing.
        papers: Papers, called `toy-0`, `toy-1`, ...
        arms: Arms of each: `mean`, `median`, then `mean_2`, ...; at least two.
        seeds: Seeds of each.
        variants: Variants of each, called `plain` (canonical), `plain-1`, ...
        bases: Bases `constant-0`, ..., each built on the one before; every variant uses the last.
        code: Also copy the code, so that stages can run in the workspace by command (`run_in`).
        git: Also make it a git repository with everything committed.
        dvc: Also initialise DVC in it (implies git).
        **parameters: Study parameters of profile small, such as `steps` or `pause`.

    Returns:
        The root.
    """
    register_toy_study()
    root.mkdir(parents=True, exist_ok=True)
    write(root, "params/bases.yaml", _bases_yaml(bases))
    for slug in (f"toy-{number}" for number in range(papers)):
        write(root, f"params/{slug}/paper.yaml", paper_yaml(slug, arms, seeds, variants, bases, parameters))
    (root / ".tessera").mkdir(exist_ok=True)
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n__pycache__/\n")
    if code:
        _copy_code(root)
    if git or dvc:
        command(root, "git", "init", "-q", "-b", "main")
        if dvc:
            command(root, sys.executable, "-m", "dvc", "init", "-q")
        commit(root, "start")
    return root


def paper_yaml(
    slug: str,
    arms: int = 2,
    seeds: int = 3,
    variants: int = 1,
    bases: int = 0,
    parameters: dict[str, Any] | None = None,
) -> str:
    """Return the declaration of one toy paper."""
    names = ["mean", "median", *(f"mean_{number}" for number in range(2, arms))][: max(arms, 2)]
    small = ["minutes: 1", *(f"{key}: {value}" for key, value in (parameters or {}).items())]
    used = f"[constant-{bases - 1}]" if bases else "[]"
    lines = [
        f"slug: {slug}",
        f'title: "Toy paper {slug}"',
        "family: text",
        "study: toy",
        "story: The centre of numbers is estimated.",
        f"seeds: {list(range(seeds))}",
        "variants:",
        f"  plain: {{canonical: true, bases: {used}}}",
        *(f"  plain-{number}: {{bases: {used}, spread: {number + 1}.0}}" for number in range(1, variants)),
        "arms:",
        "  mean: {says: the mean}",
        "  median: {says: the median, rule: median}",
        *(f"  {name}: {{says: a wider draw, spread: {number}.5}}" for number, name in enumerate(names[2:], 2)),
        "profiles:",
        "  smoke: {steps: 4}",
        f"  small: {{{', '.join(small)}}}",
        "  full: {steps: 1000, needs: patience}",
        "claims:",
        "  - id: mean-is-close",
        "    says: The mean is close to the centre.",
        "    cites: Section 1",
        "    scope: small",
        "    tests:",
        "      - {metric: error, arm: mean, at: {share: 1}, below: 3}",
        "      - {metric: error, arm: median, at: {share: 1}, minus: mean, below: 3}",
        "  - id: scales",
        "    says: A million numbers suffice.",
        "    cites: Section 2",
        "    scope: full-only",
        "    needs: a million numbers",
        "",
    ]
    return "\n".join(lines)


def _bases_yaml(count: int) -> str:
    lines = ["# toy bases"] if count else ["{}"]
    for number in range(count):
        lines += [
            f"constant-{number}:",
            f"  title: Constant {number}",
            "  recipe: toy_constant",
            f"  bases: [{f'constant-{number - 1}' if number else ''}]",
            f"  params: {{value: {number + 1}.0}}",
        ]
    return "\n".join(lines) + "\n"


def _copy_code(root: Path) -> None:
    """Copy `components` and `flows`, with the toy study and recipe in their place."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package in ("components", "flows"):
        shutil.copytree(REPOSITORY / package, root / package, ignore=ignore)
    shutil.copytree(TOY / "studies" / "toy", root / "flows" / "studies" / "toy", ignore=ignore)
    for module in (TOY / "bases").glob("*.py"):
        shutil.copy(module, root / "flows" / "studies" / "bases" / module.name)


def write(root: Path, path: str, text: str) -> None:
    """Write a file of a workspace."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def edit(root: Path, path: str, old: str, new: str) -> None:
    """Replace a text that stands once or more in a file of a workspace."""
    text = (root / path).read_text(encoding="utf-8")
    assert old in text, f"{path} does not contain {old!r}"
    write(root, path, text.replace(old, new))


def command(root: Path, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command in a workspace, with a fixed git identity and no user configuration."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "PATH": programs, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip
    done = subprocess.run(arguments, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return done


def run_in(root: Path, source: str) -> str:
    """Run Python source in a workspace made with `code=True`, in a process of its own; return what it prints."""
    return command(root, sys.executable, "-c", source).stdout


def commit(root: Path, message: str) -> None:
    """Commit everything in a workspace."""
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-q", "--allow-empty", "-m", message)
