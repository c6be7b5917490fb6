"""What a paper's page shows: story, claims with their evidence, variants, full scale, data, code, history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.paper import Paper
from flows.declarations.problems import DeclarationError
from flows.declarations.resolve import resolve
from flows.declarations.study import StudyError, UnknownStudy
from flows.declarations.workspace import UnknownBase, UnknownDataSet, Workspace
from flows.ledger import evidence, history, verified
from flows.ledger.bars import ClaimBars
from flows.ledger.claim_view import claim_view
from flows.ledger.results import ClaimRow, Record, claim_rows, count_verdicts, read_summaries
from flows.ledger.sources import Source, Sources
from flows.ledger.staleness import staleness
from flows.ledger.variant_view import study_of, variant_view


def paper_view(
    workspace: Workspace,
    paper: Paper,
    entry: CatalogueEntry,
    records: Sequence[Record],
    bars: Sequence[ClaimBars],
    sources: Sources,
) -> dict[str, Any]:
    """Return everything that the front page, the paper's page and the history show of one declared paper.

    Args:
        workspace: The workspace.
        paper: The declaration.
        entry: Its entry in the catalogue.
        records: Its judged variants.
        bars: What git knows about the bars of its claims.
        sources: The modules behind its stages.
    """
    root = workspace.root
    rows = claim_rows(root, paper, list(records))
    counts = count_verdicts(rows)
    verifications = verified.read(root, paper.slug)
    ages = {id(record): staleness(root, record.verdicts) for record in records}
    canonical = next(
        (record for record in records if record.variant == paper.canonical and record.profile == "small"), None
    )
    summaries = {id(record): read_summaries(record.directory) for record in records}
    bars_of = {found.claim: found for found in bars}
    claims = [claim_view(paper, row, summaries, bars_of.get(row.id)) for row in rows]
    variants = []
    for record in records:
        view = variant_view(workspace, paper, record, ages[id(record)], verifications.get(record.variant))
        shown = [claim for claim, row in zip(claims, rows, strict=True) if row.demo and row.record is record]
        variants.append(view | {"claims": shown})
    past = history.read(root / "results" / paper.slug)
    view = {
        "slug": paper.slug,
        "paper": paper,
        "entry": entry,
        "rows": rows,
        "counts": counts,
        "judged": any(row.judged and not row.demo for row in rows),
        "words": ", ".join(f"{count} {word}" for word, count in counts.items() if count),
        "minutes": _total([variant["minutes"] for variant in variants]),
        "age": ages[id(canonical)] if canonical else None,
        "verified": verified.standing(verifications.get(paper.canonical), canonical.verdicts) if canonical else "",
        "claims": [claim for claim, row in zip(claims, rows, strict=True) if not row.demo],
        "tiers": [evidence.tier(paper, row.claim, row.verdict) for row in rows if not row.demo],
        "variants": variants,
        "waiting": [name for name in paper.variants if name not in {record.variant for record in records}],
        "history": past,
        "changes": _changes(past),
        "records": list(records),
        "data": sorted({name for variant in paper.variants.values() for name in variant.data}),
        "data_sets": _data_sets(workspace, paper),
        "bases": _bases(workspace, paper),
        "full": _full_view(paper),
        "method": _method(paper, workspace, sources),
        "scopes": _scopes(rows),
        "dates": [entry["date"] for entry in past],
    }
    return view | {"missing": _missing(view, canonical is not None)}


def _missing(view: Mapping[str, Any], judged: bool) -> list[str]:
    """Say what a paper still lacks to count as working; nothing for one that works."""
    waiting = sum(row.verdict == "not run yet" for row in view["rows"] if not row.demo)
    missing = []
    if not judged:
        return ["its small profile has not been judged"]
    if waiting:
        missing.append(f"{waiting} claim{'' if waiting == 1 else 's'} not judged")
    if view["age"].state != "current":
        missing.append(
            {"stale": "numbers older than the code", "not locked": "numbers not those of dvc.lock"}[view["age"].state]
        )
    if not any(variant["figures"] for variant in view["variants"]):
        missing.append("no figure")
    return missing


def _total(minutes: Sequence[float | None]) -> float | None:
    known = [value for value in minutes if value is not None]
    return sum(known) if known else None


def _scopes(rows: Sequence[ClaimRow]) -> list[str]:
    scopes = set()
    for row in rows:
        if row.verdict == "out of scale":
            scopes.add("out of scale")
        elif row.judged and row.record:
            scopes.add(row.record.profile)
    return sorted(scopes)


def _changes(past: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim's verdict in each entry of the history, with the one before it."""
    last: dict[tuple[str, str, str], str] = {}
    found = []
    for position, entry in enumerate(past):
        for claim in entry["claims"]:
            key = (entry["variant"], entry["profile"], claim["id"])
            found.append(
                {
                    "date": entry["date"],
                    "position": position,
                    "variant": entry["variant"],
                    "profile": entry["profile"],
                    "commit": entry["git_commit"],
                    "claim": claim["id"],
                    "tier": claim["tier"],
                    "before": last.get(key, ""),
                    "verdict": claim["verdict"],
                }
            )
            last[key] = claim["verdict"]
    return found


def _data_sets(workspace: Workspace, paper: Paper) -> list[dict[str, Any]]:
    found = []
    names = dict.fromkeys(name for variant in paper.variants.values() for name in variant.data)
    for name in names:
        try:
            declared = workspace.data_set(name)
        except UnknownDataSet:
            found.append({"name": name, "title": name, "licence": "not declared", "attribution": "", "origin": ""})
            continue
        used = [variant for variant, of in paper.variants.items() if name in of.data]
        found.append(
            {
                "name": name,
                "title": declared.title,
                "licence": declared.licence,
                "attribution": declared.attribution,
                "origin": str(declared.origin or "generated here"),
                "embedded": declared.embedded,
                "used": used,
            }
        )
    return found


def _bases(workspace: Workspace, paper: Paper) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(name for variant in paper.variants.values() for name in variant.bases):
        try:
            base = workspace.base(name)
        except UnknownBase:
            continue
        found.append({"name": name, "title": base.title, "recipe": base.recipe, "data": base.data})
    return found


def _full_view(paper: Paper) -> dict[str, Any] | None:
    """What the paper's own scale needs, and where its parameters differ from those that were run."""
    full = paper.profiles.get("full")
    if full is None:
        return None
    resources = full.resources.model_dump()
    reserved = [
        f"{_whole(resources[key])} {word}"
        for key, word in (("gpus", "GPU"), ("cpus", "cores"), ("memory", "GiB memory"))
        if resources.get(key)
    ]
    return {
        "needs": full.needs,
        "resources": ", ".join(reserved),
        "minutes": full.minutes,
        "expect": {key.replace("_", " "): _large(value) for key, value in full.expect.items()},
        "differs": _differences(paper),
    }


def _differences(paper: Paper) -> list[tuple[str, str, str]]:
    arm = next(iter(paper.arms_of(paper.canonical)))
    try:
        small, full = (
            resolve(paper, paper.canonical, arm, profile, "evaluate").model_dump() for profile in ("small", "full")
        )
    except (DeclarationError, UnknownStudy, StudyError):
        return []
    return [(name, _spell(small[name]), _spell(value)) for name, value in full.items() if small.get(name) != value]


def _spell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_spell, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value) or "none"
    )


def _large(value: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.4g} {word}"
    return f"{value:,.0f}"


def _whole(value: float) -> str:
    return f"{value:g}"


def _method(paper: Paper, workspace: Workspace, sources: Sources) -> dict[str, list[Source]]:
    """The code behind the stages: what the arms choose by name first, then the study, then what they share."""
    chosen = set(_chosen(paper))
    reached = sources.reached(paper.slug)
    judged = [
        source for source in sources.reached(paper.slug, ("judge",)) if source.module.startswith("flows.studies.")
    ]
    study = [source for source in reached if source.module.startswith("flows.studies.")]
    components = [source for source in reached if source.module.startswith("components.")]
    shared = ("components.data.", "components.training.", "components.errors")
    return {
        "chosen by the arms": [source for source in components if source.module in chosen],
        "methods, metrics and models": [
            source for source in components if source.module not in chosen and not source.module.startswith(shared)
        ],
        "the experiment": sorted({*study, *judged}, key=lambda source: source.module),
        "data and training, shared by all papers": [
            source for source in components if source.module not in chosen and source.module.startswith(shared)
        ],
    }


def _chosen(paper: Paper) -> list[str]:
    study = study_of(paper)
    if study is None:
        return []
    found: dict[str, None] = {}
    for variant in paper.variants:
        for arm in paper.arms_of(variant):
            for kind in ("train", "evaluate"):
                try:
                    found |= dict.fromkeys(study.components(resolve(paper, variant, arm, "small", kind), kind))
                except DeclarationError:
                    continue
    return list(found)


def claims_of_tier(views: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count claims by the tier of their evidence."""
    counts = dict.fromkeys(evidence.TIERS, 0)
    for view in views:
        for tier in view["tiers"]:
            counts[tier] += 1
    return counts
