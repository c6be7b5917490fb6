"""When a paper was last rerun and compared with its committed results: `results/<slug>/verified.json`.

`tessera verify` writes an entry for each variant; the ledger shows its date and state, and says when the results that
were verified are no longer those that are committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from components.training.atomic import write_bytes
from flows.ledger.history import locked
from flows.ledger.results import ResultsError

FILE = "verified.json"
State = Literal["confirmed", "moved", "failed"]


@dataclass(frozen=True)
class Verification:
    """The last rerun of one variant.

    Attributes:
        date: Day, YYYY-MM-DD.
        state: "confirmed"; "moved" when numbers differ from what is committed; "failed" when the rerun did not end.
        level: What was compared: "bit-exact" or "seeds".
        git_commit: Commit that was rerun.
        results: Commit of the results compared with, as their `verdicts.json` states it.
        says: The outcome in a sentence.
    """

    date: str
    state: State
    level: str
    git_commit: str
    results: str
    says: str


def write(root: Path, slug: str, variant: str, verification: Verification) -> None:
    """Replace what is kept of a variant's last verification.

    Raises:
        ResultsError: The file that is there cannot be read.
    """
    folder = root / "results" / slug
    with locked(folder):
        known = _read(folder / FILE)
        known[variant] = asdict(verification)
        write_bytes(folder / FILE, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def read(root: Path, slug: str) -> dict[str, Verification]:
    """Return the last verification of each variant that ever had one.

    Raises:
        ResultsError: The file cannot be read.
    """
    return {variant: Verification(**values) for variant, values in _read(root / "results" / slug / FILE).items()}


def standing(verification: Verification | None, verdicts: Mapping[str, Any]) -> str:
    """Say in a few words where a variant stands: `confirmed 2026-11-25`, `not verified yet`."""
    if verification is None:
        return "not verified yet"
    words = f"{verification.state} {verification.date}"
    return words if verification.results == verdicts["git_commit"] else f"{words}, for earlier results"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        for values in known.values():
            Verification(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} is not readable ({error}); restore it with `git checkout -- {path}`.") from None
    return known
