"""Speed beside that of peers, as `results/benchmarks.json` keeps it, made ready for its page.

Every row has a fixed name, so that two runs compare. `ratio` is how many times better than the peer, `share` how much
of the physical limit is reached.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.ledger.results import ResultsError
from flows.ledger.verdicts import number

FILE = "benchmarks.json"
_SUBJECTS = {"ours": "", "ratio": " × the peer", "share": " of the limit", "value": ""}


def read_benchmarks(root: Path) -> dict[str, Any] | None:
    """Return `results/benchmarks.json`; None where nothing was measured.

    Raises:
        ResultsError: It cannot be read, or has another form.
    """
    path = root / "results" / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(
            f"{path} is not readable as JSON ({error}); restore it with `git checkout -- {path}`."
        ) from None
    if not isinstance(found, dict) or not {"date", "machine", "versions", "rows"} <= found.keys():
        raise ResultsError(f"{path} has no date, machine, versions and rows; measure again with `make bench`.")
    return found


def benchmark_view(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the page shows: rows by part, and what was not measured; None where nothing was."""
    if found is None:
        return None
    rows = [_row_view(row) for row in found["rows"] if "name" in row and "part" in row]
    parts = [
        {"name": name, "rows": list(members)} for name, members in itertools.groupby(rows, key=lambda row: row["part"])
    ]
    machine = found["machine"]
    return {
        "date": str(found["date"])[:10],
        "machine": ", ".join(
            filter(None, [machine.get("processor", ""), _cores(machine.get("cores")), machine.get("system", "")])
        ),
        "versions": {"Python": machine.get("python", ""), **found["versions"]},
        "parts": parts,
        "rows": len(rows),
        "bars": sum(row["holds"] is not None for row in rows),
        "held": sum(row["holds"] is True for row in rows),
        "compared": sum(row["ratio"] != "" for row in rows),
        "ahead": sum(row["ahead"] for row in rows),
        "missing": _by_reason(found.get("missing", {})),
    }


def _by_reason(missing: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of rows without a figure by the reason they share."""
    found: dict[str, list[str]] = {}
    for name, reason in missing.items():
        found.setdefault(reason, []).append(name)
    return found


def _cores(cores: int | None) -> str:
    return "" if not cores else f"{cores} core{'' if cores == 1 else 's'}"


def _row_view(row: Mapping[str, Any]) -> dict[str, Any]:
    ratio, interval, share = row.get("ratio"), row.get("interval"), row.get("share")
    value = row.get("value")
    shown = row.get("ours") if row.get("ours") is not None else value
    return {
        "name": row["name"],
        "part": row["part"],
        "says": row["says"],
        "unit": row["unit"],
        "better": "more is better" if row["better"] == "higher" else "less is better",
        "ours": _number(shown),
        "ours_interval": _interval(row.get("details", {}), "ours_interval") if row.get("interval") else "",
        "peer": _number(row.get("peer")),
        "peer_name": row.get("peer_name", ""),
        "limit": _number(row.get("limit")),
        "limit_name": row.get("limit_name", ""),
        "share": "" if share is None else f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1g}%",
        "ratio": "" if ratio is None else f"{number(float(f'{ratio:.3g}'))}",
        "ahead": ratio is not None and ratio >= 1,
        "interval": "" if not interval else f"{_number(interval[0])} to {_number(interval[1])}",
        "bar": bar_words(row.get("bar"), row["unit"]),
        "holds": row.get("holds"),
        "rounds": row.get("rounds", 0),
        "note": row.get("note", ""),
        "test": row.get("test", ""),
    }


def bar_words(bar: Mapping[str, Any] | None, unit: str) -> str:
    """Spell a bar: `at least 1.5 × the peer`, `at most 1 s`."""
    if not bar:
        return ""
    on = bar["of"]
    words = [
        f"{side} {number(bar[key]) if on != 'share' else f'{100 * bar[key]:.0f}%'}"
        for key, side in (("least", "at least"), ("most", "at most"))
        if key in bar
    ]
    behind = f" {unit}" if on in ("ours", "value") and unit else _SUBJECTS[on]
    return " and ".join(words) + behind


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1e6:
        return f"{number(float(f'{value / 1e6:.3g}'))} M"
    return f"{value:,.0f}" if abs(value) >= 1e4 else number(float(f"{value:.3g}"))


def _interval(details: Mapping[str, Any], key: str) -> str:
    ends = details.get(key)
    return f"{_number(ends[0])} to {_number(ends[1])}" if isinstance(ends, list | tuple) else ""
