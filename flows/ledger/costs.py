"""What each stage of a paper cost: `results/<slug>/costs.json`, wall time, processor time and peak memory by stage.

Stages record these beside their outputs, where nothing is hashed and nothing reaches git. Here they are kept for the
reader: a number's price belongs to it. A stage that was restored instead of run keeps what was known of it before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.training.atomic import write_bytes
from flows.declarations.paper import Paper
from flows.declarations.stages import plan_stages
from flows.ledger.results import ResultsError

FILE = "costs.json"


@dataclass(frozen=True)
class Cost:
    """What one stage took.

    Attributes:
        wall_seconds: Time from start to end.
        cpu_seconds: Processor time, all threads.
        peak_memory_bytes: Largest resident memory.
        ended: Moment it ended, ISO 8601, UTC.
        processor: What it ran on.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    ended: str
    processor: str


def write(root: Path, paper: Paper, variant: str, profile: str) -> bool:
    """Keep what the stages of one variant recorded of themselves.

    Args:
        root: Workspace root.
        paper: The declaration.
        variant: Variant that was judged.
        profile: "small" or "full".

    Returns:
        Whether anything was new.

    Raises:
        ResultsError: The file that is there cannot be read.
    """
    path = root / "results" / paper.slug / FILE
    known = _read(path)
    before = known.get(profile, {}).get(variant, {})
    found = {}
    for stage in plan_stages(paper, variant, profile):
        if stage.kind == "judge":
            continue
        environment = root / stage.log / "environment.json"
        if environment.is_file():
            found[stage.name] = _cost(json.loads(environment.read_text(encoding="utf-8")))
        elif stage.name in before:
            found[stage.name] = before[stage.name]
    if not found or found == before:
        return False
    known.setdefault(profile, {})[variant] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
    return True


def read(root: Path, slug: str, variant: str, profile: str) -> dict[str, Cost]:
    """Return the cost of every stage of a variant whose cost is known, by stage name.

    Raises:
        ResultsError: The file cannot be read.
    """
    known = _read(root / "results" / slug / FILE)
    return {name: Cost(**values) for name, values in known.get(profile, {}).get(variant, {}).items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(
            f"{path} is not readable as JSON ({error}); restore it with `git checkout -- {path}`."
        ) from None


def _cost(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "wall_seconds": environment["wall_seconds"],
        "cpu_seconds": environment.get("cpu_seconds", 0.0),
        "peak_memory_bytes": environment.get("peak_memory_bytes", 0),
        "ended": environment.get("ended", ""),
        "processor": environment.get("machine", {}).get("processor", ""),
    }
