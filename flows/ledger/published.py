"""`site/ledger.json`: the facts of the ledger's pages, as params/schema/ledger.schema.json describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flows.declarations.catalogue import CatalogueEntry
from flows.ledger.leaderboards import Board, Entry
from flows.ledger.results import ClaimRow, count_verdicts
from flows.ledger.verdicts import VERDICTS
from flows.ledger.verified import Verification


def ledger_record(
    entries: Mapping[str, CatalogueEntry], views: Mapping[str, dict[str, Any]], boards: Sequence[Board]
) -> dict[str, Any]:
    """Return the content of `ledger.json`.

    Args:
        entries: Every paper, built or not, by slug.
        views: Views of the papers that are declared, by slug.
        boards: The leaderboards.
    """
    counts = count_verdicts(row for view in views.values() for row in view["rows"])
    return {
        "counts": {word: counts[word] for word in VERDICTS},
        "working": sum(not view["missing"] for view in views.values()),
        "papers": [_paper(slug, entry, views.get(slug)) for slug, entry in entries.items()],
        "leaderboards": [_board(board) for board in boards if board.papers],
    }


def _paper(slug: str, entry: CatalogueEntry, view: Mapping[str, Any] | None) -> dict[str, Any]:
    rows: list[ClaimRow] = view["rows"] if view else []
    tiers = {claim["id"]: claim["tier"] for claim in view["claims"]} if view else {}
    return {
        "slug": slug,
        "title": entry.title,
        "family": entry.family,
        "kind": entry.kind,
        "study": entry.study,
        "built": view is not None,
        "missing": view["missing"] if view else [],
        "claims": [
            {
                "id": row.id,
                "says": row.says,
                "cites": row.claim.cites,
                "variant": row.variant,
                "demo": row.demo,
                "verdict": row.verdict if row.judged else None,
                "tier": tiers.get(row.id),
            }
            for row in rows
        ],
        "records": [
            {
                "state": variant["age"].state,
                "verdicts": variant["verdicts"],
                "verified": _verified(variant["name"], variant["verification"]),
            }
            for variant in (view["variants"] if view else [])
        ],
        "history": view["history"] if view else [],
    }


def _verified(variant: str, verification: Verification | None) -> dict[str, Any] | None:
    if verification is None:
        return None
    return {"variant": variant, **asdict(verification), "moved": list(verification.moved)}


def _board(board: Board) -> dict[str, Any]:
    return {
        "name": board.name,
        "title": board.declared.title,
        "study": board.declared.study,
        "data": board.declared.data,
        "rate": board.declared.rate.unit if board.declared.rate else None,
        "panels": [
            {
                "metric": panel.metric,
                "better": panel.fact.better,
                "budget": {name: _json(value) for name, value in panel.budget},
                "at": panel.at,
                "entries": [_entry(entry) for entry in panel.entries],
            }
            for panel in board.panels
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    against = entry.against
    return {
        "paper": entry.slug,
        "variant": entry.variant,
        "arm": entry.arm,
        "profile": entry.profile,
        "at": entry.at,
        "rate": entry.rate,
        "mean": entry.summary.mean,
        "interval": [_finite(entry.summary.low), _finite(entry.summary.high)],
        "unit": entry.summary.unit,
        "seeds": entry.summary.n,
        "samples": entry.summary.samples,
        "normaliser": entry.summary.normaliser,
        "masked_share": entry.summary.masked_share,
        "rank": entry.rank,
        "front": entry.front,
        "against_best": None
        if against is None
        else {
            "difference": _finite(against.difference),
            "interval": [_finite(against.low), _finite(against.high)],
            "p_value": against.p_value,
            "improvement": _finite(against.improvement),
            "pairing": against.pairing,
        },
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
