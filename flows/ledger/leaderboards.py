"""Leaderboards: what papers of a study measured alike, ranked, with the Pareto front of quality against rate.

    params/leaderboards.yaml --metrics, data, budget, rate--> entries <--metrics.parquet-- results/<slug>/<variant>/

An entry is one arm of one paper at one condition. Entries of equal budget form a panel for each metric; within a panel
those of equal rate (or, where nothing is spent, of equal condition) are ranked. Nothing is typed in: a paper joins by
having run on the data with the parameters that the leaderboard asks for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from components.metrics.tables import condition
from flows.declarations.arithmetic import evaluate
from flows.declarations.leaderboards import Leaderboard, Rate, study_of
from flows.declarations.metric import Metric
from flows.declarations.paper import Paper
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger import item_groups
from flows.ledger.comparison import Comparison, has_interval, of_rows, ranks
from flows.ledger.measurements import parse_condition
from flows.ledger.results import Record, Summary, read_summaries
from flows.ledger.statistics import Replicates
from flows.ledger.verdicts import constant_arms


@dataclass(frozen=True)
class Entry:
    """One arm of one paper at one condition.

    Attributes:
        slug: The paper.
        variant: Its variant.
        arm: Its arm.
        profile: Scale it was run at.
        at: Condition of the metric, as results spell it.
        rate: What it spends, None where the leaderboard has no rate.
        summary: Mean, interval and hygiene.
        quantity: The same over seeds, for comparisons.
        rank: 1 + number of papers significantly better; None with too few seeds.
        against: Comparison with the best of the same rate, None for the best itself.
        best: Whether it has the best mean of the same rate.
        front: Whether nothing is at least as good at no higher rate, and better in one of them.
    """

    slug: str
    variant: str
    arm: str
    profile: str
    at: str
    rate: float | None
    summary: Summary
    quantity: Replicates
    rank: int | None = None
    against: Comparison | None = None
    best: bool = False
    front: bool = False


@dataclass(frozen=True)
class Ranking:
    """Entries of one metric at equal budget and equal rate or condition, best first.

    Attributes:
        at: Condition they share; "" where their rate is what they share.
        rate: Rate they share, None without one.
        entries: The entries, by rank and mean.
    """

    at: str
    rate: float | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Panel:
    """One metric at one budget.

    Attributes:
        metric: Name.
        fact: Its declaration.
        budget: Values of the parameters that make the budget.
        at: What else its entries have in common: the part of their condition that the rate does not follow.
        rankings: By rate or condition.
    """

    metric: str
    fact: Metric
    budget: tuple[tuple[str, Any], ...]
    at: str
    rankings: tuple[Ranking, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry of the panel."""
        return tuple(entry for ranking in self.rankings for entry in ranking.entries)


@dataclass(frozen=True)
class Board:
    """A leaderboard with what has joined it.

    Attributes:
        name: Name in leaderboards.yaml.
        declared: Its declaration.
        panels: One for each metric and budget that any entry has.
        papers: Slugs of the papers that joined.
        missing: Papers that ran on the data and could not join, with the reason.
    """

    name: str
    declared: Leaderboard
    panels: tuple[Panel, ...]
    papers: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]


_Budget = tuple[tuple[str, Any], ...]
_Found = dict[tuple[str, _Budget, str], list[Entry]]
"""Entries by metric, budget, and the part of the condition that the rate does not follow."""


def leaderboards(workspace: Workspace, records: Mapping[str, Sequence[Record]]) -> list[Board]:
    """Collect and rank every leaderboard of a workspace.

    Args:
        workspace: The declarations.
        records: Judged variants of each paper.

    Returns:
        The leaderboards in the order declared; one that nobody has joined has no panels.
    """
    return [_board(workspace, name, declared, records) for name, declared in workspace.leaderboards.items()]


def _board(workspace: Workspace, name: str, declared: Leaderboard, records: Mapping[str, Sequence[Record]]) -> Board:
    found: _Found = {}
    missing: dict[str, str] = {}
    for slug, judged in records.items():
        paper = workspace.paper(slug)
        if paper.study != declared.study:
            continue
        for record in judged:
            used = declared.data is None or declared.data in _data_of(paper, record)
            if paper.variants[record.variant].demo or not used:
                continue
            reason = _collect(workspace, paper, record, declared, found)
            if reason:
                missing[slug] = reason
    facts, _ = study_of(declared, [slug for slug in records if workspace.paper(slug).study == declared.study])
    panels = [
        Panel(metric, facts[metric], budget, at, _rankings(found[metric, budget, at], facts[metric], declared.rate))
        for metric in declared.metrics
        for _, budget, at in sorted((key for key in found if key[0] == metric), key=repr)
    ]
    papers = dict.fromkeys(entry.slug for panel in panels for entry in panel.entries)
    absent = tuple((slug, reason) for slug, reason in missing.items() if slug not in papers)
    return Board(name, declared, tuple(panels), tuple(papers), absent)


def _data_of(paper: Paper, record: Record) -> tuple[str, ...]:
    profile = paper.profiles[record.profile]
    return paper.variants[record.variant].data if profile.data is None else profile.data


def _collect(
    workspace: Workspace,
    paper: Paper,
    record: Record,
    declared: Leaderboard,
    found: _Found,
) -> str:
    """Add the entries of one judged variant; return why there are none, if it measured what is ranked."""
    path = record.directory / "metrics.parquet"
    wanted = [*declared.metrics, *([declared.rate.metric] if declared.rate and declared.rate.metric else [])]
    if not path.is_file():
        return ""
    frame = pl.read_parquet(path).filter(pl.col("metric").is_in(wanted))
    groups = item_groups.read(workspace.root, paper.slug).partition_by(*item_groups.KEYS, as_dict=True)
    cells = frame.partition_by("arm", "metric", "at", as_dict=True, maintain_order=True)
    summaries = {(summary.arm, summary.metric, summary.at): summary for summary in read_summaries(record.directory)}
    constants, reason = constant_arms(paper), ""
    measured = {arm for arm, metric, _ in cells if metric in declared.metrics}
    joined = False
    for arm in filter(measured.__contains__, paper.arms_of(record.variant)):
        parameters = resolve(paper, record.variant, arm, record.profile, "evaluate").model_dump()
        named = {*declared.where, *declared.same}
        if named - parameters.keys():
            reason = f"its arms have no parameter {', '.join(sorted(named - parameters.keys()))}"
            continue
        if any(parameters[name] != value for name, value in declared.where.items()):
            reason = f"no arm has {', '.join(f'{name} = {value!r}' for name, value in declared.where.items())}"
            continue
        budget = tuple((name, parameters[name]) for name in declared.same)
        for (owner, metric, at), rows in cells.items():
            if owner != arm or metric not in declared.metrics or (arm, metric, at) not in summaries:
                continue
            if declared.at is not None and parse_condition(at) != {k: str(v) for k, v in declared.at.items()}:
                continue
            rate, rest = None, ""
            if declared.rate is not None:
                rate, followed, fault = _rate(declared.rate, parameters, at, arm, summaries)
                if fault:
                    reason = fault
                    continue
                rest = condition({key: value for key, value in parse_condition(at).items() if key not in followed})
            source = f"{paper.slug}/{record.profile}/{record.variant}/{arm}/{metric}/{at}"
            kept = groups.get((record.profile, record.variant, arm, metric, at))
            quantity = item_groups.paired_rows(kept, of_rows(rows, constant=arm in constants, source=source))
            entry = Entry(
                paper.slug, record.variant, arm, record.profile, at, rate, summaries[arm, metric, at], quantity
            )
            found.setdefault((metric, budget, rest), []).append(entry)
            joined = True
    return "" if joined else reason


def _rate(
    rate: Rate,
    parameters: Mapping[str, Any],
    at: str,
    arm: str,
    summaries: Mapping[tuple[str, str, str], Summary],
) -> tuple[float, Collection[str], str]:
    """Return what an entry spends, the keys of its condition that this follows, and why it is not known."""
    conditions = parse_condition(at)
    if rate.metric is not None:
        # Measured at the entry's condition or at a part of it: what is spent does not depend on every key.
        parts = {
            where: summary.mean
            for (owner, metric, where), summary in summaries.items()
            if (owner, metric) == (arm, rate.metric) and parse_condition(where).items() <= conditions.items()
        }
        if not parts:
            return math.nan, (), f"{rate.metric} was not measured"
        nearest = max(parts, key=lambda where: len(parse_condition(where)))
        return parts[nearest], parse_condition(nearest).keys(), ""
    keys = {key: number for key, value in conditions.items() if (number := _number(value)) is not None}
    values = {name: float(value) for name, value in parameters.items() if _number(value) is not None}
    for key, name in rate.unless.items():
        if key not in keys and name in values:
            values[key] = values[name]
    try:
        return evaluate(rate.formula or "", values | keys), rate.names, ""
    except ValueError as error:
        return math.nan, (), f"its rate is not known: {error}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _rankings(entries: Sequence[Entry], fact: Metric, rate: Rate | None) -> tuple[Ranking, ...]:
    groups: dict[tuple[float, str], list[Entry]] = {}
    for entry in entries:
        # Equal rates that were computed along other ways differ in their last digits.
        key = (0.0, entry.at) if entry.rate is None else (float(f"{entry.rate:.9g}"), "")
        groups.setdefault(key, []).append(entry)
    front = _front(entries, fact, rate) if rate is not None else set()
    rankings = []
    for (spent, at), members in sorted(groups.items(), key=lambda item: item[0]):
        found = ranks([entry.quantity for entry in members], fact.better, [entry.slug for entry in members])
        ranked = [
            replace(
                entry,
                rank=rank.rank,
                against=rank.against_best,
                best=rank.against_best is None,
                front=id(entry) in front,
            )
            for entry, rank in zip(members, found, strict=True)
        ]
        sign = -1 if fact.better == "higher" else 1
        ranked.sort(key=lambda entry: (entry.rank is None, not entry.best, entry.rank or 0, sign * entry.summary.mean))
        rankings.append(Ranking(at, spent if rate is not None else None, tuple(ranked)))
    return tuple(rankings)


def _front(entries: Iterable[Entry], fact: Metric, rate: Rate) -> set[int]:
    """Identify the entries that no other dominates: walking by rate, each that betters all before it."""
    towards = 1 if rate.better == "lower" else -1
    sign = 1 if fact.better == "higher" else -1
    # One seed may be luck, so an entry without an interval is neither on the front nor dominates anything.
    able = [entry for entry in entries if has_interval(entry.quantity)]
    order = sorted(able, key=lambda entry: (towards * (entry.rate or 0.0), -sign * entry.summary.mean))
    found, best = set(), -math.inf
    for entry in order:
        if sign * entry.summary.mean > best:
            found.add(id(entry))
            best = sign * entry.summary.mean
    return found
