"""What the front page shows: how many papers work, verdicts by family, and on what, for how much and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.paper import Family
from flows.ledger.leaderboards import Board
from flows.ledger.paper_view import claims_of_tier
from flows.ledger.results import count_verdicts
from flows.ledger.verdicts import VERDICTS

FAMILIES: tuple[str, ...] = get_args(Family)


def front_view(
    entries: Mapping[str, CatalogueEntry], views: Mapping[str, dict[str, Any]], boards: Sequence[Board]
) -> dict[str, Any]:
    """Return what the front page shows.

    Args:
        entries: Every paper, built or not, by slug.
        views: Views of the papers that are declared, by slug.
        boards: The leaderboards.
    """
    papers = [
        {
            "slug": slug,
            "title": entry.title,
            "family": entry.family,
            "kind": entry.kind,
            "study": entry.study,
            "view": views.get(slug),
            "state": _state(views.get(slug)),
        }
        for slug, entry in entries.items()
    ]
    counts = count_verdicts(row for view in views.values() for row in view["rows"])
    built = list(views.values())
    return {
        "papers": sorted(papers, key=lambda paper: paper["view"] is None),
        "families": [
            _family_view(family, [paper for paper in papers if paper["family"] == family]) for family in FAMILIES
        ],
        "studies": sorted({entry.study for entry in entries.values()}),
        "data": sorted({name for view in built for name in view["data"]}),
        "counts": counts,
        "working": sum(not view["missing"] for view in built),
        "judged": sum(counts[verdict] for verdict in VERDICTS),
        "judged_papers": sum(view["judged"] for view in built),
        "tiers": claims_of_tier(built),
        "facts": _facts(built),
        "boards": [board for board in boards if board.papers],
    }


def _state(view: Mapping[str, Any] | None) -> str:
    if view is None:
        return "not built"
    return "in progress" if view["missing"] else "works"


def _family_view(family: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    built = [paper["view"] for paper in members if paper["view"]]
    return {
        "name": family,
        "papers": members,
        "built": len(built),
        "working": sum(not view["missing"] for view in built),
        "counts": count_verdicts(row for view in built for row in view["rows"]),
    }


def _facts(views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """On what, for how much and when: only what is recorded."""
    records = [record for view in views for record in view["records"]]
    dates = sorted(date for view in views for date in view["dates"])
    variants = [variant for view in views for variant in view["variants"]]
    checked = sorted(v["verification"].date for v in variants if v["verification"])
    states = [variant["verified_state"] for variant in variants if variant["verified_state"]]
    return {
        "machines": list(dict.fromkeys(_short_machine(record.verdicts["machine"]) for record in records)),
        "minutes": sum(view["minutes"] or 0 for view in views),
        "stages": sum(len(record.verdicts["stages"]) for record in records),
        "memory": max((variant["cost"]["memory"] for variant in variants if variant["cost"]), default=0.0),
        "first": dates[0] if dates else "",
        "last": dates[-1] if dates else "",
        "verified": checked[-1] if checked else "",
        "confirmed": states.count("confirmed"),
        "moved": len(states) - states.count("confirmed"),
        "variants": len(variants),
    }


def _short_machine(machine: Mapping[str, Any]) -> str:
    parts = [str(machine.get("gpu") or machine.get("processor") or "")]
    if machine.get("cores"):
        parts.append(f"{machine['cores']} cores")
    if machine.get("memory_gib"):
        parts.append(f"{machine['memory_gib']} GiB")
    return ", ".join(part for part in parts if part)
