"""When a paper was rerun and compared with its committed results: `results/<slug>/verifications.jsonl`.

`tessera verify` adds a line for each variant that it reran, and never changes one, so the file shows when numbers began
to move. The ledger shows the last line of each variant, and says when the results that were verified are no longer
those that are committed. params/schema/verifications.schema.json describes a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.training.atomic import write_bytes
from flows.ledger.history import locked
from flows.ledger.results import ResultsError

FILE = "verifications.jsonl"
State = Literal["confirmed", "moved", "failed"]


@dataclass(frozen=True)
class Verification:
    """One rerun of one variant.

    Attributes:
        date: Day, YYYY-MM-DD.
        state: "confirmed"; "moved" when numbers differ from what is committed; "failed" when the rerun did not end.
        level: What was compared: "bit-exact" or "seeds"; "" where it failed.
        git_commit: Commit that was rerun.
        results: Commit of the results compared with, as their `verdicts.json` states it.
        says: The outcome in a sentence.
        metrics: Number of metrics compared.
        moved: The metrics that moved, each in a sentence.
        machine_class: What the rerun ran on; empty where it failed or ran on several machines.
        against: Folder whose numbers it was compared with, where these were not the committed ones.
    """

    date: str
    state: State
    level: str
    git_commit: str
    results: str
    says: str
    metrics: int = 0
    moved: tuple[str, ...] = ()
    machine_class: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""


def write(root: Path, slug: str, variant: str, verification: Verification) -> None:
    """Add a verification to those of a paper.

    Raises:
        ResultsError: The file that is there cannot be read.
    """
    folder = root / "results" / slug
    with locked(folder):
        path = folder / FILE
        _lines(path)
        before = path.read_bytes() if path.is_file() else b""
        entry = {"variant": variant, **asdict(verification)}
        write_bytes(path, before + json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read(root: Path, slug: str) -> dict[str, Verification]:
    """Return the last verification of each variant that ever had one.

    Raises:
        ResultsError: The file cannot be read.
    """
    return dict(_lines(root / "results" / slug / FILE))


def standing(verification: Verification | None, verdicts: Mapping[str, Any]) -> str:
    """Say in a few words where a variant stands: `confirmed 2026-11-25`, `not verified yet`."""
    if verification is None:
        return "not verified yet"
    words = f"{verification.state} {verification.date}"
    return words if verification.results == verdicts["git_commit"] else f"{words}, for earlier results"


def _lines(path: Path) -> list[tuple[str, Verification]]:
    """Return (variant, verification) of every line, oldest first."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            variant, moved = entry.pop("variant"), tuple(entry.pop("moved", ()))
            found.append((variant, Verification(**entry, moved=moved)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ResultsError(
                f"{path}:{number} is no verification ({error}); restore the file with `git checkout -- {path}`."
            ) from None
    return found
