"""The ledger as static pages in `site/`, and the same facts as JSON.

    params/ + results/ --> paper views --+--> index.html         every paper, searchable
                               |         +--> papers/<slug>.html  claims, evidence, cost, code
                               |         +--> history.html        what was believed when
                           leaderboards ----> leaderboards/<study>.html
                results/benchmarks.json ----> benchmarks.html     speed beside peers, minutes and memory
                                              reading.html, source/<module>.html, ledger.json and its schemas

Every page is one file that needs nothing else: styles, script and drawings are inside it, figures are data URIs, and
its content security policy allows nothing from outside. Equal results give equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from components.metrics.sanity import gates
from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.files import write_if_changed
from flows.declarations.metric import Metric
from flows.declarations.study import StudyError, UnknownStudy, load_study
from flows.declarations.workspace import Workspace
from flows.ledger import budgets
from flows.ledger.bars import ClaimBars, NoGitHistory, claim_bars
from flows.ledger.benchmarks import benchmark_view, read_benchmarks
from flows.ledger.board_view import board_view
from flows.ledger.front_view import FAMILIES, front_view
from flows.ledger.leaderboards import Board, leaderboards
from flows.ledger.metric_tables import DIRECTION
from flows.ledger.paper_view import claims_of_tier, paper_view
from flows.ledger.published import ledger_record
from flows.ledger.rendering import TEMPLATES, environment, write
from flows.ledger.results import read_records
from flows.ledger.sources import Source, Sources, fingerprint, highlighted

SCHEMAS = ("ledger", "verdicts", "history", "verifications")


def build(root: Path, site: Path) -> Path:
    """Write the ledger of a workspace.

    Args:
        root: Workspace root: `params/` and `results/` are read, and git where there is a checkout.
        site: Folder to write into; its pages of papers, studies and modules that no longer exist are removed.

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
    records = {slug: read_records(root, workspace.paper(slug)) for slug in entries if slug in workspace.slugs}
    sources = Sources(root)
    bars = _bars(root, list(records))
    views = {
        slug: paper_view(workspace, workspace.paper(slug), entries[slug], judged, bars.get(slug, []), sources)
        for slug, judged in records.items()
    }
    boards = leaderboards(workspace, records)
    made = environment()
    _write_papers(site, made, views, boards)
    _write_boards(site, made, entries, views, boards)
    _write_sources(site, made, sources, views)
    write(site / "index.html", made, "index.html", up="", here="papers", **front_view(entries, views, boards))
    write(site / "benchmarks.html", made, "benchmarks.html", up="", here="speed", **_speed_view(workspace))
    write(site / "history.html", made, "history.html", up="", here="history", **_history_view(views))
    write(
        site / "reading.html",
        made,
        "reading.html",
        up="",
        here="reading",
        studies=_glossary(workspace, entries),
        gates=gates(),
    )
    record = json.dumps(ledger_record(entries, views, boards), indent=1, ensure_ascii=False, allow_nan=False)
    write_if_changed(site / "ledger.json", record.encode() + b"\n")
    for name in SCHEMAS:
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


def _bars(root: Path, slugs: Sequence[str]) -> dict[str, list[ClaimBars]]:
    """When bars were set, where git tells."""
    try:
        return claim_bars(root, slugs)
    except NoGitHistory:
        return {}


def _write_papers(
    site: Path, made: jinja2.Environment, views: Mapping[str, dict[str, Any]], boards: Sequence[Board]
) -> None:
    for slug, view in views.items():
        joined = [board for board in boards if slug in board.papers]
        write(site / "papers" / f"{slug}.html", made, "paper.html", up="../", here="", paper=view, boards=joined)
    _keep_only(site / "papers", set(views))


def _write_boards(
    site: Path,
    made: jinja2.Environment,
    entries: Mapping[str, CatalogueEntry],
    views: Mapping[str, dict[str, Any]],
    boards: Sequence[Board],
) -> None:
    titles = {slug: entry.title for slug, entry in entries.items()}
    states = {
        (slug, variant["profile"], variant["name"]): variant["age"].state
        for slug, view in views.items()
        for variant in view["variants"]
    }
    studies = sorted({entry.study for entry in entries.values()})
    joined = {study: [board for board in boards if board.declared.study == study and board.papers] for study in studies}
    for study, of_study in joined.items():
        if of_study:
            shown = [board_view(board, titles, states) for board in of_study]
            others = [name for name in studies if joined[name]]
            path = site / "leaderboards" / f"{study}.html"
            write(path, made, "board.html", up="../", here="boards", study=study, boards=shown, studies=others)
    _keep_only(site / "leaderboards", {study for study, of_study in joined.items() if of_study})
    declared = {board.declared.study for board in boards}
    rows = [
        {
            "name": study,
            "boards": joined[study],
            "papers": sum(entry.study == study for entry in entries.values()),
            "run": sum(view["paper"].study == study and bool(view["records"]) for view in views.values()),
            "declared": study in declared,
        }
        for study in studies
    ]
    write(site / "leaderboards.html", made, "boards.html", up="", here="boards", studies=rows)


def _write_sources(site: Path, made: jinja2.Environment, sources: Sources, views: Mapping[str, dict[str, Any]]) -> None:
    wanted: dict[str, Source] = {}
    users: dict[str, list[tuple[str, str]]] = {}
    for slug, view in views.items():
        for source in (source for group in view["method"].values() for source in group):
            wanted[source.module] = source
            users.setdefault(source.module, []).append((slug, view["paper"].title))
    template = (TEMPLATES / "source.html").read_text(encoding="utf-8")
    for module, source in wanted.items():
        path, text = site / "source" / f"{module}.html", sources.text(source)
        mark = fingerprint(f"{text}{template}{users[module]}{made.globals['style']}{made.globals['script_hash']}")
        if not _shows(path, mark):
            values = {"source": source, "lines": highlighted(text), "users": users[module], "mark": mark}
            write(path, made, "source.html", up="../", here="", **values)
    _keep_only(site / "source", set(wanted))


def _shows(path: Path, mark: str) -> bool:
    """Whether a page of source was rendered from the same text before."""
    try:
        with path.open("rb") as file:
            return f'content="{mark}"'.encode() in file.read(1000)
    except OSError:
        return False


def _keep_only(folder: Path, stems: set[str]) -> None:
    for page in folder.glob("*.html"):
        if page.name.removesuffix(".html") not in stems:
            page.unlink()


def _speed_view(workspace: Workspace) -> dict[str, Any]:
    """Benchmarks, and what the papers took beside what they declare."""
    found = budgets.budgets(workspace)
    return {
        "measured": benchmark_view(read_benchmarks(workspace.root)),
        "budgets": found,
        "peak": budgets.highest_peak(found),
        "slack": budgets.SLACK,
        "most": budgets.MOST_GIB,
    }


def _history_view(views: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Changes of verdicts and bars over all papers, latest first."""
    changes = [
        {**change, "slug": slug, "title": view["paper"].title}
        for slug, view in views.items()
        for change in view["changes"]
    ]
    bars = [
        {"date": str(change.date), "what": change.what, "why": change.why, "slug": slug, "title": view["paper"].title}
        for slug, view in views.items()
        for change in view["paper"].history
    ]
    found = [claim["bars"] for view in views.values() for claim in view["claims"] if claim["bars"]]
    return {
        "changes": sorted(
            changes, key=lambda change: (change["date"], change["slug"], change["position"]), reverse=True
        ),
        "bars": sorted(bars, key=lambda change: change["date"], reverse=True),
        "tiers": claims_of_tier(list(views.values())),
        "checked": len(found),
        "late": [bar for bar in found if bar.late],
    }


def _glossary(workspace: Workspace, entries: Mapping[str, CatalogueEntry]) -> list[dict[str, Any]]:
    """Every metric of every study that exists, with its unit, direction and definition."""
    found = []
    for study in sorted({entry.study for entry in entries.values()}):
        metrics: dict[str, Metric] = {}
        for slug in ("", *workspace.slugs_of(study)):
            try:
                metrics = load_study(study, slug).metrics | metrics
            except (UnknownStudy, StudyError):
                continue
        rows = [
            {"name": name, "unit": metric.unit, "better": DIRECTION[metric.better], "says": metric.says}
            for name, metric in metrics.items()
        ]
        if rows:
            found.append({"name": study, "metrics": sorted(rows, key=lambda row: row["name"])})
    return found
