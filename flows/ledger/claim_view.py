"""What a paper's page shows of one claim: its verdict, the tests behind it, and how good the evidence is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.declarations.paper import AllOf, Paper
from flows.ledger import evidence
from flows.ledger.bars import ClaimBars
from flows.ledger.metric_tables import normaliser_words
from flows.ledger.results import ClaimRow, Summary
from flows.ledger.verdicts import sentence


def claim_view(
    paper: Paper, row: ClaimRow, summaries: Mapping[int, list[Summary]], bars: ClaimBars | None
) -> dict[str, Any]:
    """Return what the page shows of one claim.

    Args:
        paper: The declaration.
        row: Where the claim stands.
        summaries: Metrics of each record, by the record's id, for the hygiene of each number.
        bars: What git knows about its bars, where it does.
    """
    judged = row.judged or {"tests": [], "gates": [], "note": ""}
    known = summaries.get(id(row.record), [])
    return {
        "id": row.id,
        "says": row.says,
        "cites": row.claim.cites,
        "verdict": row.verdict,
        "variant": row.variant,
        "profile": row.record.profile if row.record else "",
        "scope": row.claim.scope,
        "join": _join_words(judged.get("join", "all_of"), len(judged["tests"])),
        "tests": _with_hygiene(judged["tests"], _singles(row.claim.tests), known),
        "gates": _with_hygiene(judged["gates"], _singles(row.claim.gates), known),
        "asks": [] if row.judged else [sentence(test) for test in row.claim.tests],
        "note": judged["note"] or (f"Needs {row.claim.needs}" if row.claim.needs else ""),
        "tier": evidence.tier(paper, row.claim, row.verdict),
        "bars": bars,
    }


def _singles(tests: Sequence[Any]) -> list[Any]:
    return [single for test in tests for single in (test.all_of if isinstance(test, AllOf) else (test,))]


def _with_hygiene(
    recorded: Sequence[dict[str, Any]], declared: Sequence[Any], known: Sequence[Summary]
) -> list[dict[str, Any]]:
    """Add to each recorded test what its metric was divided by and how much was masked."""
    singles = {sentence(single): (single.metrics, single.arms) for single in declared}
    found = []
    for test in recorded:
        metrics, arms = singles.get(test["test"], ((), ()))
        chosen = [summary for summary in known if summary.metric in metrics and summary.arm in arms]
        found.append(test | {"hygiene": normaliser_words(chosen) if chosen else []})
    return found


def _join_words(join: str, tests: int) -> str:
    if tests < 2:
        return ""
    if join == "all_of":
        return "all must hold"
    if join == "any_of":
        return "one must hold"
    needed, _, available = join.partition("_of_")
    return f"{needed} of {available} must hold"
