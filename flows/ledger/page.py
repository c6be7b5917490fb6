"""The ledger as static pages: `site/index.html`, one page for each paper, and the same facts as JSON.

Every page is one file that needs nothing else: styles, script and drawings are inside it, figures are data URIs, and
its content security policy allows nothing from outside. Equal results give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.files import write_if_changed
from flows.declarations.paper import Paper
from flows.declarations.study import UnknownStudy, load_study
from flows.declarations.workspace import Workspace
from flows.ledger import drawing, history
from flows.ledger.figures import read_figures
from flows.ledger.measurements import parse_condition
from flows.ledger.results import (
    NOT_RUN,
    ClaimRow,
    Record,
    Summary,
    claim_rows,
    count_verdicts,
    read_records,
    read_summaries,
    spell,
)
from flows.ledger.staleness import Staleness, staleness
from flows.ledger.verdicts import VERDICTS, number, to_precision

TEMPLATES = Path(__file__).parent / "templates"
FAMILIES = ("text", "language", "representations", "diffusion", "image", "audio", "multimodal")
_MEANING = {
    "reproduced": "every interval lies where the claim wants it",
    "contradicted": "an interval lies wholly on the other side",
    "inconclusive": "an interval straddles its bar, or a gate was not met",
    "out of scale": "needs the paper's own scale; says what it would need",
}
_WIDE = 12  # conditions beside each other before a table is folded away


def build(root: Path, site: Path) -> Path:
    """Write the ledger of a workspace.

    Args:
        root: Workspace root: `params/` and `results/` are read.
        site: Folder to write into; its pages of papers that no longer exist are removed.

    Returns:
        The front page, `site / "index.html"`.

    Raises:
        DeclarationError: A declaration cannot be used.
        ResultsError: A result file cannot be read.
        HistoryError: A history file cannot be read.
    """
    workspace = Workspace.load(root)
    root = workspace.root
    entries = _entries(workspace)
    built = [_paper_view(root, workspace.paper(slug), entries[slug]) for slug in entries if slug in workspace.slugs]
    views = {view["slug"]: view for view in built}
    pages = site / "papers"
    pages.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    for view in built:
        _write(pages / f"{view['slug']}.html", environment, "paper.html", paper=view)
    for page in pages.glob("*.html"):
        if page.stem not in views:
            page.unlink()
    _write(site / "index.html", environment, "index.html", **_front_view(entries, views))
    record = json.dumps(_ledger_record(entries, views), indent=1, ensure_ascii=False, allow_nan=False)
    write_if_changed(site / "ledger.json", record.encode() + b"\n")
    for name in ("ledger", "verdicts"):
        schema = root / "params" / "schema" / f"{name}.schema.json"
        if schema.is_file():
            shutil.copyfile(schema, site / schema.name)
    return site / "index.html"


def _entries(workspace: Workspace) -> dict[str, CatalogueEntry]:
    """Every paper of the catalogue, and papers declared without being in it, by family and title."""
    found = dict(workspace.catalogue)
    for slug in workspace.slugs:
        if slug not in found:
            paper = workspace.paper(slug)
            found[slug] = CatalogueEntry(title=paper.title, family=paper.family, kind="method", study=paper.study)
    return dict(sorted(found.items(), key=lambda item: (FAMILIES.index(item[1].family), item[1].title.casefold())))


# What a page shows -------------------------------------------------------------------------------------------------


def _front_view(entries: Mapping[str, CatalogueEntry], views: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    counts = count_verdicts(row for view in views.values() for row in view["rows"])
    papers = [
        {
            "slug": slug,
            "title": entry.title,
            "family": entry.family,
            "kind": entry.kind,
            "study": entry.study,
            "view": views.get(slug),
        }
        for slug, entry in entries.items()
    ]
    return {
        "papers": sorted(papers, key=lambda paper: paper["view"] is None),
        "families": [(family, [paper for paper in papers if paper["family"] == family]) for family in FAMILIES],
        "studies": sorted({entry.study for entry in entries.values()}),
        "counts": counts,
        "judged": sum(counts[verdict] for verdict in VERDICTS),
        "judged_papers": sum(view["judged"] for view in views.values()),
        "meaning": _MEANING,
    }


def _paper_view(root: Path, paper: Paper, entry: CatalogueEntry) -> dict[str, Any]:
    records = read_records(root, paper)
    rows = claim_rows(root, paper, records)
    counts = count_verdicts(rows)
    ages = {id(record): staleness(root, record.verdicts) for record in records}
    canonical = next((record for record in records if record.variant == paper.canonical), None)
    return {
        "slug": paper.slug,
        "paper": paper,
        "entry": entry,
        "rows": rows,
        "counts": counts,
        "judged": any(row.judged and not row.demo for row in rows),
        "words": ", ".join(f"{count} {word}" for word, count in counts.items() if count),
        "minutes": sum(record.verdicts["minutes"] or 0 for record in records) if records else None,
        "age": ages[id(canonical)] if canonical else None,
        "claims": [_claim_view(row) for row in rows if not row.demo],
        "variants": [_variant_view(paper, record, ages[id(record)], rows) for record in records],
        "waiting": [name for name in paper.variants if name not in {record.variant for record in records}],
        "history": history.read(root / "results" / paper.slug),
        "records": records,
    }


def _claim_view(row: ClaimRow) -> dict[str, Any]:
    judged = row.judged or {"tests": [], "gates": [], "note": ""}
    return {
        "id": row.id,
        "says": row.says,
        "cites": row.claim.cites,
        "verdict": row.verdict,
        "variant": row.variant,
        "profile": row.record.profile if row.record else "",
        "join": _join_words(judged.get("join", "all_of"), len(judged["tests"])),
        "tests": judged["tests"],
        "gates": judged["gates"],
        "note": judged["note"] or (f"Needs {row.claim.needs}" if row.claim.needs else ""),
    }


def _join_words(join: str, tests: int) -> str:
    if tests < 2:
        return ""
    if join == "all_of":
        return "all must hold"
    if join == "any_of":
        return "one must hold"
    needed, _, available = join.partition("_of_")
    return f"{needed} of {available} must hold"


def _variant_view(paper: Paper, record: Record, age: Staleness, rows: Iterable[ClaimRow]) -> dict[str, Any]:
    declared = paper.variants[record.variant]
    arms = [name for name in paper.arms_of(record.variant)]
    return {
        "name": record.variant,
        "role": "canonical" if declared.canonical else "demo" if declared.demo else "further evidence",
        "says": declared.says,
        "data": declared.data,
        "profile": record.profile,
        "verdicts": record.verdicts,
        "machine": _machine_words(record.verdicts["machine"]),
        "age": age,
        "claims": [_claim_view(row) for row in rows if row.demo and row.record is record],
        "arms": [(name, paper.arms[name].says) for name in arms],
        "metrics": _metric_tables(paper, read_summaries(record.directory), arms),
        "curves": _curve_drawings(record.directory, arms),
        "figures": read_figures(record.directory),
        "rerun": _rerun(paper, record),
    }


def _rerun(paper: Paper, record: Record) -> list[str]:
    commit = record.verdicts["git_commit"].partition("+")[0]
    profile = " --profile full" if record.profile == "full" else ""
    reproduce = f"tessera reproduce {paper.slug} --variant {record.variant}{profile}"
    return [*([f"git checkout {commit}"] if commit else []), reproduce]


def _machine_words(machine: Mapping[str, Any]) -> str:
    words = {
        "processor": "{}",
        "cores": "{} cores",
        "memory_gib": "{} GiB memory",
        "system": "{}",
        "python": "Python {}",
    }
    return ", ".join(form.format(machine[key]) for key, form in words.items() if machine.get(key))


def _metric_tables(paper: Paper, summaries: list[Summary], arms: list[str]) -> list[dict[str, Any]]:
    """One table for each metric: arms below each other, conditions beside each other."""
    try:
        facts = load_study(paper.study, paper.slug).metrics
    except UnknownStudy:
        facts = {}
    tables = []
    for metric in dict.fromkeys(summary.metric for summary in summaries):
        chosen = [summary for summary in summaries if summary.metric == metric]
        conditions = sorted(dict.fromkeys(summary.at for summary in chosen), key=_natural)
        cells = {(summary.arm, summary.at): summary for summary in chosen}
        present = [arm for arm in arms if any((arm, at) in cells for at in conditions)]
        seeds = max(summary.n for summary in chosen)
        fact = facts.get(metric)
        keys = {tuple(parse_condition(at)) for at in conditions}
        along = next(iter(keys))[0] if len(keys) == 1 and len(next(iter(keys))) == 1 else ""
        tables.append(
            {
                "metric": metric,
                "says": fact.says if fact else "",
                "better": {"higher": "higher is better", "lower": "lower is better"}.get(
                    fact.better if fact else "", ""
                ),
                "unit": chosen[0].unit,
                "hygiene": _hygiene(chosen),
                "along": along,
                "conditions": [parse_condition(at)[along] if along else at.replace(",", ", ") for at in conditions],
                "rows": [(arm, [_cell(cells.get((arm, at)), seeds) for at in conditions]) for arm in present],
                "seeds": seeds,
                "folded": len(conditions) > _WIDE,
            }
        )
    return tables


def _natural(at: str) -> list[tuple[str, float, str]]:
    """Order conditions by their keys' numbers, not by their spelling."""
    return [(key, _number_or(value), value) for key, value in parse_condition(at).items()]


def _number_or(value: str) -> float:
    return float(value) if re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value) else math.inf


def _cell(summary: Summary | None, seeds: int) -> dict[str, str] | None:
    if summary is None:
        return None
    half = (summary.high - summary.low) / 2
    return {
        "value": to_precision(summary.mean, half),
        # A constant without a known sampling variance has no interval, which is not an interval of zero width.
        "half": to_precision(half, half) if math.isfinite(half) and (half or summary.n > 1) else "",
        "seeds": f"n = {summary.n}" if summary.n != seeds else "",
    }


def _hygiene(summaries: list[Summary]) -> str:
    samples = sorted({summary.samples for summary in summaries})
    words = f"{samples[0]:,}" if len(samples) == 1 else f"{samples[0]:,} to {samples[-1]:,}"
    parts = [f"{words} test item{'' if samples == [1] else 's'}"]
    normalisers = sorted({summary.normaliser for summary in summaries if summary.normaliser})
    if normalisers:
        parts.append(f"divided by {', '.join(normalisers)}")
    masked = max(summary.masked_share for summary in summaries)
    parts.append("nothing masked" if masked == 0 else f"up to {masked:.1%} masked or padded")
    return ", ".join(parts)


def _curve_drawings(directory: Path, arms: list[str]) -> list[dict[str, Any]]:
    path = directory / "curves.parquet"
    if not path.is_file():
        return []
    drawings = []
    frame = pl.read_parquet(path).filter(pl.col("value").is_finite())
    for (series, unit), points in frame.group_by(["series", "unit"], maintain_order=True):
        runs = points.group_by(["arm", "seed"], maintain_order=True)
        lines = [(arm, run["step"].to_list(), run["value"].to_list()) for (arm, _), run in runs]
        lines = sorted((line for line in lines if len(line[1]) > 1), key=lambda line: _position(arms, line[0]))
        if lines:
            legend = list(dict.fromkeys(arm for arm, _, _ in lines))
            title = f"{series} ({unit})" if unit else series
            drawings.append({"title": title, "svg": Markup(drawing.curves(series, lines, unit)), "legend": legend})
    return drawings


def _position(arms: list[str], arm: str) -> int:
    return arms.index(arm) if arm in arms else len(arms)


def _ledger_record(entries: Mapping[str, CatalogueEntry], views: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the content of `ledger.json`, as params/schema/ledger.schema.json describes it."""
    papers = []
    for slug, entry in entries.items():
        view = views.get(slug)
        rows: list[ClaimRow] = view["rows"] if view else []
        papers.append(
            {
                "slug": slug,
                "title": entry.title,
                "family": entry.family,
                "kind": entry.kind,
                "study": entry.study,
                "built": view is not None,
                "claims": [
                    {
                        "id": row.id,
                        "says": row.says,
                        "cites": row.claim.cites,
                        "variant": row.variant,
                        "demo": row.demo,
                        "verdict": row.verdict if row.judged else None,
                    }
                    for row in rows
                ],
                "records": [
                    {"state": variant["age"].state, "verdicts": variant["verdicts"]}
                    for variant in (view["variants"] if view else [])
                ],
                "history": view["history"] if view else [],
            }
        )
    counts = count_verdicts(row for view in views.values() for row in view["rows"])
    return {"counts": {word: counts[word] for word in VERDICTS}, "papers": papers}


# How it is written -------------------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "ledger.js").read_text(encoding="utf-8")
    environment.globals |= {
        "style": Markup((TEMPLATES / "ledger.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        # The policy lets exactly this script run, so that nothing smuggled in through a text could.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "verdict_words": VERDICTS,
        "not_run": NOT_RUN,
    }
    environment.filters |= {
        "plot": lambda test: Markup(drawing.interval(test)),
        "spell": spell,
        "groupby_runs": _runs_of_groups,
        "slugify": lambda words: re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-"),
        "number": number,
    }
    return environment


def _runs_of_groups(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tests that follow each other in one group, together."""
    runs = itertools.groupby(tests, key=lambda test: test["group"])
    return [{"name": name, "tests": list(members)} for name, members in runs]


def _write(path: Path, environment: jinja2.Environment, template: str, **values: Any) -> None:
    write_if_changed(path, environment.get_template(template).render(**values).encode())
