"""Whether recorded numbers are those of the code and parameters that stand in the checkout now.

Only YAML files are read: `dvc.lock` says with which digests each stage was run and what it gave, `digests.json` says
which digests the code and parameters have now. The stage `code` keeps the latter up to date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.declarations.document import read_document

State = Literal["current", "stale", "not locked"]


@dataclass(frozen=True)
class Staleness:
    """What became of a record since it was made.

    Attributes:
        state: "current"; "stale" when code or parameters of a stage changed since; "not locked" when the record is not
            what `dvc.lock` holds.
        says: The same in a sentence.
        stages: The stages concerned.
    """

    state: State
    says: str
    stages: tuple[str, ...] = ()


def staleness(root: Path, verdicts: Mapping[str, Any]) -> Staleness:
    """Compare a record with the lock and the digests of its paper.

    Args:
        root: Workspace root.
        verdicts: Content of a `verdicts.json`.
    """
    folder = f"params/{verdicts['paper']}"
    lock_path = f"{folder}/full/dvc.lock" if verdicts["profile"] == "full" else f"{folder}/dvc.lock"
    digests_path = f"{folder}/digests.json"
    if not (root / lock_path).is_file():
        return Staleness("not locked", f"{lock_path} does not exist, so nothing ties these numbers to their stages.")
    locked = read_document(root, lock_path, "DVC's lock").data.get("stages") or {}
    differing = tuple(name for name, md5 in verdicts["stages"].items() if _output(locked.get(name)) != md5)
    if differing:
        return Staleness("not locked", "These numbers come from other stage outputs than dvc.lock holds.", differing)
    current = read_document(root, digests_path, "digests").data if (root / digests_path).is_file() else {}
    judge = f"{verdicts['variant']}-judge"
    changed = tuple(
        name for name in (*verdicts["stages"], judge) if _changed(locked.get(name) or {}, digests_path, current)
    )
    if changed:
        what = "stage" if len(changed) == 1 else "stages"
        return Staleness("stale", f"Code or parameters of {len(changed)} {what} changed after this run.", changed)
    return Staleness("current", "Code and parameters are those of this run.")


def _output(stage: Mapping[str, Any] | None) -> str | None:
    """Hash of a stage's single output directory."""
    outputs = (stage or {}).get("outs") or []
    return outputs[0].get("md5") if len(outputs) == 1 else None


def _changed(stage: Mapping[str, Any], digests_path: str, current: Mapping[str, Any]) -> bool:
    recorded = (stage.get("params") or {}).get(digests_path) or {}
    return any(_look_up(current, key) != value for key, value in recorded.items())


def _look_up(tree: Any, dotted: str) -> Any:
    """Value at a dotted key; a unit's name holds dashes and underscores but never a dot."""
    for step in dotted.split("."):
        if not isinstance(tree, Mapping) or step not in tree:
            return None
        tree = tree[step]
    return tree
