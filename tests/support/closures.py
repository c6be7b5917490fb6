"""Which first-party modules a process loads for a stage, against those its code digest covers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from flows.declarations.workspace import Workspace
from flows.engine.compile import all_stages
from flows.engine.digests import Code, entry_modules

# Third-party packages are imported once and every entry is then imported in a fork of that process: as fresh as a new
# process as far as first-party modules go, and without paying for torch each time.
_CHILDREN = """
import importlib, json, os, sys
for package in ("torch", "numpy", "polars", "pydantic"):
    importlib.import_module(package)
assert not any(name.split(".")[0] in ("components", "flows") for name in sys.modules)
for line in sys.stdin:
    entries = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for entry in entries:
            importlib.import_module(entry)
        print(json.dumps(sorted(n for n in sys.modules if n.split(".")[0] in ("components", "flows"))), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"importing {entries} failed")
"""


def entries_of(root: Path) -> list[tuple[str, ...]]:
    """Return the distinct sets of modules from which the stages of a workspace start."""
    workspace, code = Workspace.load(root), Code(root)
    stages = [stage for stage in all_stages(workspace) if stage.kind in ("base", "train", "evaluate", "judge")]
    return sorted({tuple(sorted(entry_modules(workspace, stage, code))) for stage in stages})


def loaded_by(entries: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], set[str]]:
    """Return the first-party modules that are loaded when each set of entries is imported in a fresh process."""
    entries = list(entries)
    done = subprocess.run(
        [sys.executable, "-c", _CHILDREN],
        input="".join(json.dumps(names) + "\n" for names in entries),
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2], timeout=240,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr)
    return {names: set(json.loads(line)) for names, line in zip(entries, done.stdout.splitlines(), strict=True)}
