"""The append-only history of a paper's verdicts: `results/<slug>/history.jsonl`, one line per change.

An entry is added when a verdict, an estimate, an interval or a bar of a variant changed since its last entry; a rerun
that reproduces its numbers adds nothing. Nothing is ever edited or removed, so the file shows what was believed when,
at which commit and from which stage outputs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import TesseraError
from components.training.atomic import write_bytes

FILE = "history.jsonl"
TIER = "reimplemented here"

# Two runs on different machines differ in the last digits; that is no news.
_RELATIVE_TOLERANCE = 1e-6


class HistoryError(TesseraError):
    """A history file cannot be read, so nothing may be appended to it."""


def append(directory: Path, verdicts: Mapping[str, Any], date: str, tiers: Mapping[str, str] | None = None) -> bool:
    """Record the judged claims of one variant, unless they equal what was recorded last.

    Args:
        directory: `results/<slug>`.
        verdicts: Content of a `verdicts.json`.
        date: Day of the judgement, YYYY-MM-DD.
        tiers: How the evidence of each claim was obtained, by claim id; TIER where a claim is not named.

    Returns:
        Whether an entry was added. Demo variants, smoke runs and variants without claims have no history.

    Raises:
        HistoryError: The file holds a line that is no entry.
    """
    if verdicts["demo"] or verdicts["profile"] == "smoke" or not verdicts["claims"]:
        return False
    claims = [_claim(claim, (tiers or {}).get(claim["id"], TIER)) for claim in verdicts["claims"]]
    with locked(directory):
        entries = read(directory)
        same_kind = [
            entry
            for entry in entries
            if (entry["variant"], entry["profile"]) == (verdicts["variant"], verdicts["profile"])
        ]
        if same_kind and _alike(same_kind[-1]["claims"], claims):
            return False
        entry = {
            "date": date,
            "variant": verdicts["variant"],
            "canonical": verdicts["canonical"],
            "profile": verdicts["profile"],
            "git_commit": verdicts["git_commit"],
            "claims": claims,
            "stages": verdicts["stages"],
        }
        path = directory / FILE
        before = path.read_bytes() if entries else b""
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        write_bytes(path, before + line.encode() + b"\n")
    return True


def read(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of a paper, oldest first; none where there is no history yet.

    Raises:
        HistoryError: A line is no entry.
    """
    path = directory / FILE
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not {"date", "variant", "profile", "claims"} <= entry.keys():
            raise HistoryError(
                f"{path}:{number} is no history entry; restore the file with `git checkout -- {path}` and rerun."
            )
        # Early entries say the tier once, for all claims.
        tier = entry.pop("tier", TIER)
        entry["claims"] = [{"tier": tier, **claim} for claim in entry["claims"]]
        entries.append(entry)
    return entries


def _claim(claim: Mapping[str, Any], tier: str) -> dict[str, Any]:
    tests = [{key: test[key] for key in ("test", "estimate", "interval", "bar", "holds")} for test in claim["tests"]]
    return {"id": claim["id"], "verdict": claim["verdict"], "tier": tier, "tests": tests}


def _alike(old: Any, new: Any) -> bool:
    if isinstance(old, float | int) and isinstance(new, float | int):
        return math.isclose(old, new, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-12)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_alike(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_alike, old, new))
    return old == new


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process or thread at a time write beside a paper's results; two variants may be judged at once."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
