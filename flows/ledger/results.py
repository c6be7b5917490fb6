"""Reading `results/`: the records of a paper's variants, the standing of each claim, tables for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from components.errors import TesseraError
from flows.declarations.paper import Claim, Paper
from flows.ledger.verdicts import VERDICTS, number, spell_interval

if TYPE_CHECKING:
    from rich.table import Table

NOT_RUN = "not run yet"

_COLOURS = {"reproduced": "green", "contradicted": "red", "inconclusive": "yellow", "out of scale": "blue"}


class ResultsError(TesseraError):
    """A file below results/ cannot be read."""


@dataclass(frozen=True)
class Record:
    """One judged variant of a paper.

    Attributes:
        directory: `results/<slug>/<variant>` or `results/<slug>/full/<variant>`.
        verdicts: Content of its `verdicts.json`.
    """

    directory: Path
    verdicts: dict[str, Any]

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self.verdicts["variant"]

    @property
    def profile(self) -> str:
        """Scale that was run: "small" or "full"."""
        return self.verdicts["profile"]

    @property
    def claims(self) -> dict[str, dict[str, Any]]:
        """Judged claims by id."""
        return {claim["id"]: claim for claim in self.verdicts["claims"]}


@dataclass(frozen=True)
class ClaimRow:
    """Where a declared claim stands.

    Attributes:
        id: Name of the claim.
        says: The claim in our words.
        verdict: One of the four words, or NOT_RUN.
        variant: Variant in which it is judged.
        claim: The declaration.
        judged: The judged claim of `verdicts.json`, and its record; None where it was not judged yet.
        record: The record it stands in.
        demo: Whether it belongs to a demo variant and is never counted.
    """

    id: str
    says: str
    verdict: str
    variant: str
    claim: Claim
    judged: dict[str, Any] | None
    record: Record | None
    demo: bool


@dataclass(frozen=True)
class Summary:
    """A metric of an arm over its seeds: mean, ends of its interval (infinite where there is none) and n."""

    arm: str
    metric: str
    at: str
    mean: float
    low: float
    high: float
    n: int
    samples: int
    unit: str
    normaliser: str
    masked_share: float


def read_verdicts(directory: Path) -> dict[str, Any] | None:
    """Return the content of a variant's `verdicts.json`, None where it was not judged.

    Raises:
        ResultsError: The file is no JSON object with claims.
    """
    path = directory / "verdicts.json"
    if not path.is_file():
        return None
    try:
        verdicts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is not readable as JSON ({error}); rerun the judge stage that writes it.") from None
    if not isinstance(verdicts, dict) or not {"variant", "profile", "claims", "demo"} <= verdicts.keys():
        raise ResultsError(f"{path} holds no verdicts; rerun the judge stage that writes it.")
    return verdicts


def read_records(root: Path, paper: Paper) -> list[Record]:
    """Return every judged variant of a paper: canonical first, then in the order declared, small before full."""
    order = sorted(paper.variants, key=lambda name: (not paper.variants[name].canonical, paper.variants[name].demo))
    records = []
    for name in order:
        for directory in (root / "results" / paper.slug / name, root / "results" / paper.slug / "full" / name):
            verdicts = read_verdicts(directory)
            if verdicts is not None:
                records.append(Record(directory, verdicts))
    return records


def read_summaries(directory: Path) -> list[Summary]:
    """Return every metric of every arm over its seeds, as the judge stage summarised them."""
    path = directory / "summary.parquet"
    return [Summary(**row) for row in pl.read_parquet(path).iter_rows(named=True)] if path.is_file() else []


def claim_rows(root: Path, paper: Paper, records: list[Record] | None = None) -> list[ClaimRow]:
    """Return every declared claim with its verdict; a run at full scale outranks the small one."""
    records = read_records(root, paper) if records is None else records
    rows = []
    for claim in paper.claims:
        variant = paper.variant_of(claim)
        found = [record for record in records if record.variant == variant and claim.id in record.claims]
        record = max(found, key=lambda record: record.profile == "full", default=None)
        judged = record.claims[claim.id] if record else None
        verdict = judged["verdict"] if judged else NOT_RUN
        demo = paper.variants[variant].demo
        rows.append(ClaimRow(claim.id, claim.says, verdict, variant, claim, judged, record, demo))
    return rows


def count_verdicts(rows: Iterable[ClaimRow]) -> dict[str, int]:
    """Count claims by verdict, in the order of the words, NOT_RUN last; claims of demo variants do not count."""
    counts = dict.fromkeys([*VERDICTS, NOT_RUN], 0)
    for row in rows:
        if not row.demo:
            counts[row.verdict] += 1
    return counts


def verdict_counts(root: Path, paper: Paper) -> str:
    """Say a paper's verdicts in a few words: `3 reproduced, 1 inconclusive`; empty where nothing was judged."""
    counts = count_verdicts(claim_rows(root, paper))
    if sum(counts.values()) == counts[NOT_RUN]:
        return ""
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def verdict_table(directories: Iterable[Path]) -> Table:
    """Return the claims of judged variants as a table for the terminal.

    Args:
        directories: Result folders of variants; those without verdicts are left out.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, options in (("paper", {}), ("claim", {}), ("verdict", {}), ("decided by", {"overflow": "fold"})):
        table.add_column(column, **options)
    for directory in directories:
        verdicts = read_verdicts(directory)
        if verdicts is None:
            continue
        name = f"{verdicts['paper']} ({verdicts['variant']}{', demo' if verdicts['demo'] else ''})"
        if not verdicts["claims"]:
            table.add_row(Text(name), Text("no claim is judged in this variant", style="dim"), "", "")
        for claim in verdicts["claims"]:
            verdict = Text(claim["verdict"], style="dim" if verdicts["demo"] else _COLOURS[claim["verdict"]])
            table.add_row(Text(name), Text(claim["id"]), verdict, Text(_decided_by(claim)))
            name = ""
    return table


def _decided_by(claim: dict[str, Any]) -> str:
    """The test a reader should look at first: one that decided against the claim, else its first."""
    if not claim["tests"]:
        return claim["note"]
    order = {"fails": 0, "straddles": 1, "holds": 2}
    if claim["verdict"] == "reproduced":
        order = {"holds": 0, "straddles": 1, "fails": 2}
    test = min(claim["tests"], key=lambda test: order[test["holds"]])
    closed = [gate for gate in claim["gates"] if gate["holds"] != "holds"]
    if closed:
        return f"gate not met: {closed[0]['test']}: {spell(closed[0])}"
    return f"{test['test']}: {spell(test)}"


def spell(test: dict[str, Any]) -> str:
    """Spell a recorded test's estimate: `2.31 [1.95, 2.67] dB`."""
    low, high = test["interval"]
    if test["estimate"] is None:
        return test["reason"] or "undefined"
    if low is None and high is None and test["reason"]:
        return " ".join(part for part in (number(test["estimate"]), test["unit"], f"({test['reason']})") if part)
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return spell_interval(test["estimate"], *ends, test["unit"])
