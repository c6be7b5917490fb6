"""Which first-party modules a process loads for a stage, against those its code digest covers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from flows.declarations.stages import StageSpec, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import all_stages
from flows.engine.digests import Code, entry_modules

REPOSITORY = Path(__file__).resolve().parents[2]

# Third-party packages are imported once, and every request is then served in a fork of that process: as fresh as a new
# process as far as first-party modules go, and without paying for torch each time.
_CHILDREN = """
import importlib, json, os, sys
for package in ("torch", "numpy", "polars", "pydantic", "scipy.stats"):
    importlib.import_module(package)
def first_party():
    return {name for name in sys.modules if name.split(".")[0] in ("components", "flows")}
assert not first_party()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        before = set()
        for entry in request.get("modules", []):
            importlib.import_module(entry)
        if "stand_ins" in request:
            from pathlib import Path
            from flows.declarations.workspace import Workspace
            from flows.smoke import make_stand_ins
            slug, variant, under = request["stand_ins"]
            make_stand_ins(Path("."), Workspace.load(".").paper(slug), variant, under)
        if "stage" in request:
            from flows.stage import run_request
            before = first_party()
            result = run_request(request["stage"])
            if result["status"] != "done":
                sys.exit(result["traceback"])
        print("loaded " + json.dumps(sorted(first_party() - before)), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"{request} failed")
"""


def _serve(requests: list[dict]) -> list[set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILDREN],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True, text=True, cwd=REPOSITORY, timeout=280,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr)
    lines = [line.removeprefix("loaded ") for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert len(lines) == len(requests)
    return [set(json.loads(line)) for line in lines]


def entries_of(root: Path) -> list[tuple[str, ...]]:
    """Return the distinct sets of modules from which the stages of a workspace start."""
    workspace, code = Workspace.load(root), Code(root)
    stages = [stage for stage in all_stages(workspace) if stage.kind in ("base", "train", "evaluate", "judge")]
    return sorted({tuple(sorted(entry_modules(workspace, stage, code))) for stage in stages})


def loaded_by_import(entries: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], set[str]]:
    """Return the first-party modules that are loaded when each set of entries is imported in a fresh process."""
    entries = list(entries)
    return dict(zip(entries, _serve([{"modules": names} for names in entries]), strict=True))


def loaded_by_smoke(slug: str, under: Path) -> dict[tuple[str, ...], set[str]]:
    """Run smoke stages of a paper, one for each set of entries, and return the first-party modules each run loads.

    Modules that the runner itself needs are not in the answer.
    """
    workspace, code = Workspace.load(REPOSITORY), Code(REPOSITORY)
    paper = workspace.paper(slug)
    requests: list[dict] = []
    asked: dict[int, tuple[str, ...]] = {}
    for variant in paper.variants:
        stages = plan_stages(paper, variant, "smoke", str(under))
        entries = {stage.name: tuple(sorted(entry_modules(workspace, stage, code))) for stage in stages[:-1]}
        chosen = {
            names: stage for stage in reversed(stages[:-1]) if (names := entries[stage.name]) not in asked.values()
        }
        models = {stage.inputs["train"] for stage in chosen.values() if "train" in stage.inputs}
        requests.append({"stand_ins": [slug, variant, str(under)]})
        for stage in stages[:-1]:
            if stage.output in models or stage in chosen.values():
                asked[len(requests)] = entries[stage.name]
                requests.append({"stage": _request(stage, under)})
    answers = _serve(requests)
    loaded: dict[tuple[str, ...], set[str]] = {}
    for position, names in asked.items():
        loaded[names] = loaded.get(names, set()) | answers[position]
    return loaded


def _request(stage: StageSpec, under: Path) -> dict:
    arguments = stage.arguments[: stage.arguments.index("--profile")]
    return {"root": str(REPOSITORY), "arguments": arguments, "profile": "smoke", "under": str(under)}


def outside_closure(code: Code, entries: tuple[str, ...], loaded: set[str]) -> set[str]:
    """Return the loaded modules that the digest of a stage with these entries does not cover.

    Declarations only carry values, and the engine runs stages; studies may not import it (a contract of import-linter).
    """
    uncovered = loaded - set(code.closure(entries))
    spared = ("flows.declarations", "flows.engine")
    return {name for name in uncovered if not name.startswith(spared) and code.syntax(name).symbols}
