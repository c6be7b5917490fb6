"""`tessera compare`: arms of papers of one study side by side, from what is in results/ and nothing else.

    results/<slug>/<variant>/metrics.parquet ─┐
    results/<slug>/item-groups.parquet        ├─ a quantity per (paper, arm) ── interval, rank, difference to the best
                                              ┘
Entries are compared at one metric and condition. Seeds pair where both sides have them, test items where both sides
read the same data; see `flows.ledger.comparison` for the statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from components.errors import TesseraError, did_you_mean
from flows.declarations.metric import Metric
from flows.declarations.paper import Paper
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.ledger import item_groups
from flows.ledger.comparison import Comparison, Rank, ranks, recorded
from flows.ledger.comparison import compare as compare_two
from flows.ledger.results import Record, read_records
from flows.ledger.statistics import Estimate, Replicates, mean
from flows.ledger.verdicts import constant_arms, number, spell_interval, to_precision

if TYPE_CHECKING:
    from rich.table import Table as Printed


class NotComparable(TesseraError):
    """These papers have nothing that can be put side by side."""


@dataclass(frozen=True)
class Source:
    """One paper in the variant that is compared.

    Attributes:
        paper: The paper.
        record: Its judged variant.
        frame: Content of the record's `metrics.parquet`.
    """

    paper: Paper
    record: Record
    frame: pl.DataFrame

    @property
    def data(self) -> tuple[str, ...]:
        """Data sets of the variant."""
        return self.paper.variants[self.record.variant].data

    @property
    def name(self) -> str:
        """The paper and its variant, in words."""
        return f"{self.paper.slug} ({self.record.variant})"


@dataclass(frozen=True)
class Entry:
    """One arm of one paper at one metric and condition.

    Attributes:
        paper: Slug.
        arm: Arm.
        quantity: Its value over seeds.
        estimate: Mean over seeds with its interval.
        rank: 1 + the number of papers with a significantly better entry; None where it cannot be ranked.
        against: Difference to the reference entry; None for that entry itself.
    """

    paper: str
    arm: str
    quantity: Replicates
    estimate: Estimate
    rank: int | None
    against: Comparison | None


@dataclass(frozen=True)
class Block:
    """The entries at one condition, the best first where there is a better direction.

    Attributes:
        at: Condition; "" for none.
        unit: Unit of the metric.
        entries: The entries; the first is the reference of all differences.
    """

    at: str
    unit: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Sheet:
    """A comparison of papers at one metric.

    Attributes:
        study: Study of all papers.
        metric: The metric.
        fact: What the study says of it.
        sources: The papers, in the order asked for.
        blocks: One for each condition that is compared.
        others: Further metrics that all papers have.
        notes: What a reader must know before believing a difference.
    """

    study: str
    metric: str
    fact: Metric
    sources: tuple[Source, ...]
    blocks: tuple[Block, ...]
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """What is compared, in a line."""
        better = {"higher": "higher is better", "lower": "lower is better"}.get(self.fact.better)
        return ", ".join(part for part in (self.metric, self.fact.unit, better) if part)


def compare(
    root: Path,
    slugs: Sequence[str],
    *,
    metric: str | None = None,
    variant: str | None = None,
    at: str | None = None,
) -> Sheet:
    """Put arms of papers side by side.

    Args:
        root: The workspace.
        slugs: Papers of one study.
        metric: Metric of the study; None for the first that ranks and that all of them have.
        variant: Data variant of every paper; None for each one's canonical variant.
        at: Only this condition, such as "k=8"; None for every condition.

    Raises:
        NotComparable: The papers are of several studies or data sets, have not run, or share no metric or condition.
        UnknownPaper: A slug is not in params/.
    """
    workspace = Workspace.load(root)
    papers = [workspace.paper(slug) for slug in dict.fromkeys(slugs)]
    study = _one_study(papers)
    sources = tuple(_source(workspace.root, paper, variant) for paper in papers)
    _same_data(sources)
    facts = {name: fact for paper in papers for name, fact in load_study(study, paper.slug).metrics.items()}
    known = _common_metrics(workspace, study, sources, facts)
    if metric is None:
        metric = known[0]
    elif metric not in known:
        raise NotComparable(
            f"{metric!r} is not measured by {_and(source.name for source in sources)}; common to them are "
            f"{', '.join(known)}.{did_you_mean(metric, known)}"
        )
    conditions = _conditions(sources, metric, at)
    blocks = tuple(_block(workspace.root, sources, metric, condition, facts[metric]) for condition in conditions)
    return Sheet(
        study=study,
        metric=metric,
        fact=facts[metric],
        sources=sources,
        blocks=blocks,
        others=tuple(name for name in known if name != metric),
        notes=tuple(_notes(workspace, study, sources)),
    )


def _one_study(papers: Sequence[Paper]) -> str:
    studies: dict[str, str] = {}
    for paper in papers:
        studies.setdefault(paper.study, paper.slug)
    if len(studies) > 1:
        listed = _and(f"{slug} is of study {study}" for study, slug in studies.items())
        raise NotComparable(f"{listed}; only papers of one study measure the same things.")
    return next(iter(studies))


def _source(root: Path, paper: Paper, variant: str | None) -> Source:
    name = variant or paper.canonical
    if name not in paper.variants:
        known = list(paper.variants)
        raise NotComparable(
            f"{paper.slug} has no variant {name!r}; expected one of {', '.join(known)}.{did_you_mean(name, known)}"
        )
    records = [record for record in read_records(root, paper) if record.variant == name and record.profile == "small"]
    if not records or not (records[0].directory / "metrics.parquet").is_file():
        raise NotComparable(f"{paper.slug} has no results in variant {name}; run `tessera reproduce {paper.slug}`.")
    return Source(paper, records[0], pl.read_parquet(records[0].directory / "metrics.parquet"))


def _same_data(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        if first.data and source.data and not set(first.data) & set(source.data):
            raise NotComparable(
                f"{first.name} reads {', '.join(first.data)}, {source.name} reads {', '.join(source.data)}: numbers of "
                "different data say nothing about each other. Choose a variant on common data with --variant."
            )


def _common_metrics(
    workspace: Workspace, study: str, sources: Sequence[Source], facts: Mapping[str, Metric]
) -> list[str]:
    """Return the metrics that all papers have: those of the study's leaderboards first, then others that rank."""
    measured = [set(source.frame["metric"].unique()) for source in sources]
    common = set.intersection(*measured) & facts.keys()
    if not common:
        raise NotComparable(
            f"{_and(source.name for source in sources)} have no metric in common; they measure "
            + "; ".join(f"{', '.join(sorted(names))}" for names in measured)
            + "."
        )
    boards = [board.metrics for board in workspace.leaderboards.values() if board.study == study]
    order = list(dict.fromkeys([*(name for metrics in boards for name in metrics), *facts]))
    return sorted(common, key=lambda name: (facts[name].better == "neither", order.index(name)))


def _conditions(sources: Sequence[Source], metric: str, at: str | None) -> list[str]:
    """Return the conditions to show: all of one paper, or those that at least two papers have."""
    found: dict[str, int] = {}
    for source in sources:
        for condition in source.frame.filter(pl.col("metric") == metric)["at"].unique(maintain_order=True):
            found[condition] = found.get(condition, 0) + 1
    if at is not None:
        if at not in found:
            known = [condition or "(no condition)" for condition in found]
            raise NotComparable(
                f"{metric} was not measured at {at!r}; it was at {', '.join(known)}.{did_you_mean(at, known)}"
            )
        return [at]
    shared = [condition for condition, count in found.items() if count > 1 or len(sources) == 1]
    if not shared:
        listed = "; ".join(condition or "(no condition)" for condition in found)
        raise NotComparable(f"No two of the papers measured {metric} at the same condition; theirs are {listed}.")
    return shared


def _block(root: Path, sources: Sequence[Source], metric: str, at: str, fact: Metric) -> Block:
    pairs_items = len({source.data for source in sources}) == 1
    found: list[tuple[str, str, Replicates]] = []
    units: dict[tuple[str, str], str] = {}
    for source in sources:
        rows = source.frame.filter((pl.col("metric") == metric) & (pl.col("at") == at))
        for arm in rows["arm"].unique(maintain_order=True):
            (scale,) = set(rows.filter(pl.col("arm") == arm).select("unit", "normaliser").unique().iter_rows())
            units.setdefault(scale, source.name)
            found.append((source.paper.slug, arm, _quantity(root, source, arm, metric, at, pairs_items)))
    if len(units) > 1:
        listed = _and(f"{name} in {unit or 'no unit'} per {per or 'nothing'}" for (unit, per), name in units.items())
        raise NotComparable(f"{metric} is measured by {listed}; values compared must have one unit and normaliser.")
    return Block(at, next(iter(units))[0], tuple(_ranked(found, fact)))


def _ranked(found: Sequence[tuple[str, str, Replicates]], fact: Metric) -> Iterable[Entry]:
    quantities = [quantity for *_, quantity in found]
    if fact.better == "neither":
        places = [
            Rank(None, (), compare_two(quantity, quantities[0], "higher") if position else None)
            for position, quantity in enumerate(quantities)
        ]
        order = range(len(found))
    else:
        places = ranks(quantities, fact.better, [slug for slug, *_ in found])
        sign = -1 if fact.better == "higher" else 1
        # The yardstick stands first, so that every difference is one to the line above all others.
        order = sorted(
            range(len(found)),
            key=lambda index: (
                places[index].against_best is not None,
                places[index].rank is None,
                sign * float(quantities[index].values.mean()),
            ),
        )
    for index in order:
        slug, arm, quantity = found[index]
        yield Entry(slug, arm, quantity, mean(quantity), places[index].rank, places[index].against_best)


def _quantity(root: Path, source: Source, arm: str, metric: str, at: str, pairs_items: bool) -> Replicates:
    constant = arm in constant_arms(source.paper)
    quantity = recorded(source.frame, arm, metric, at, constant=constant, test_set=source.name)
    if not pairs_items:
        return quantity
    groups = item_groups.read(root, source.paper.slug)
    return item_groups.paired(groups, quantity, source.record.profile, source.record.variant, arm, metric, at)


def _notes(workspace: Workspace, study: str, sources: Sequence[Source]) -> Iterable[str]:
    """Say what differs between the papers beside their methods: data, and the budget of the study's leaderboards."""
    if len({source.data for source in sources}) > 1:
        yield "not quite the same data: " + "; ".join(
            f"{source.name} reads {', '.join(source.data)}" for source in sources
        )
    data = set.intersection(*(set(source.data) for source in sources))
    boards = [board for board in workspace.leaderboards.values() if board.study == study and board.data in data]
    for name in dict.fromkeys(name for board in boards for name in board.same):
        values = {source.name: _values(source, name) for source in sources}
        if len({frozenset(spelled) for spelled in values.values()}) > 1:
            listed = "; ".join(f"{', '.join(sorted(spelled))} in {paper}" for paper, spelled in values.items())
            yield f"not the same {name}: {listed}"


def _values(source: Source, parameter: str) -> set[str]:
    """Return the values that the trained arms of a paper give a parameter, spelled."""
    paper, variant = source.paper, source.record.variant
    arms = [arm for arm, declared in paper.arms_of(variant).items() if declared.trains] or list(paper.arms_of(variant))
    return {str(getattr(resolve(paper, variant, arm, "small", "evaluate"), parameter, "none")) for arm in arms}


def _and(words: Iterable[str]) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# For the terminal ----------------------------------------------------------------------------------------------------


def printed(sheet: Sheet, block: Block) -> Printed:
    """Return one block as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    ranked = sheet.fact.better != "neither"
    title = Text(f"{sheet.title}{f', at {block.at}' if block.at else ''}", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    columns = ["rank"] if ranked else []
    columns += ["paper", "arm", "mean [95%]", "seeds", f"minus the {'best' if ranked else 'first'} [95%]", "p"]
    columns += ["better in"] if ranked else []
    for column in [*columns, "pairs"]:
        table.add_column(column, overflow="fold")
    for entry in block.entries:
        row = [str(entry.rank or "")] if ranked else []
        row += [entry.paper, entry.arm, spelled(entry.estimate), str(entry.estimate.seeds)]
        row += _difference(entry.against, ranked)
        table.add_row(*map(Text, row))
    return table


def refusals(block: Block) -> list[str]:
    """Say why some entries of a block have no interval, each reason once."""
    reasons = [entry.against.refusal for entry in block.entries if entry.against is not None]
    return list(dict.fromkeys(reason for reason in reasons if reason))


def spelled(estimate: Estimate) -> str:
    """Spell a mean with its interval, or alone where it has none."""
    if estimate.refusal or estimate.low == estimate.high:
        return number(estimate.value)
    return spell_interval(estimate.value, estimate.low, estimate.high, "")


def _difference(against: Comparison | None, ranked: bool) -> list[str]:
    if against is None:
        return []
    improvement = [f"{against.improvement:.0%}"] if ranked else []
    if against.refusal:
        return [f"{number(against.difference)} (no interval)", "", *improvement, against.pairing]
    words = spell_interval(against.difference, against.low, against.high, "")
    p = "< 0.0001" if against.p_value < 1e-4 else to_precision(against.p_value, against.p_value)
    return [words, p, *improvement, against.pairing]
