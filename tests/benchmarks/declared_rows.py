"""The rows of `make bench` under fixed names (`rows.yaml`), and how measurements become `results/benchmarks.json`.

A row names its test and says where its figures stand in that test's `extra_info`; `forward.ours` is `ours` inside
`forward`. A row that says nothing has `ours`, `peer`, `limit`, `ratio` and `interval` under these names, as far as they
are there. What was never measured on a quiet machine stands in `pending.yaml`, with the reason.

    ratio   how many times better than the peer: above 1 is ahead, whether more or less of the unit is better
    share   ours over the physical limit, at most about 1
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("rows.yaml")
PENDING = Path(__file__).with_name("pending.yaml")
FIGURES = ("ours", "peer", "limit", "ratio", "interval", "value")


@dataclass(frozen=True)
class Bar:
    """A figure that must hold.

    Attributes:
        of: "ours", "ratio", "share" or "value".
        least: It is at least so much.
        most: It is at most so much.
    """

    of: str
    least: float | None = None
    most: float | None = None

    def holds(self, figure: float | None) -> bool | None:
        """Whether a figure is within the bar; None where it is not known."""
        if figure is None:
            return None
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)


@dataclass(frozen=True)
class Row:
    """One declared row.

    Attributes:
        name: Its fixed name, `<subject>/<what>`.
        part: Heading it stands under.
        says: What is measured.
        test: Name of the test that measures it, with its parameters.
        unit: Unit of ours, peer and limit.
        better: "higher" or "lower".
        peer: What it is compared with; "" for nothing.
        limit: What cannot be passed; "" for nothing.
        bar: What must hold; None where it is reported only.
        figures: Where figures stand in `extra_info`, by figure.
        pending: Why it was not measured yet; "" once it was.
        note: What a reader should know of the comparison.
    """

    name: str
    part: str
    says: str
    test: str
    unit: str
    better: str
    peer: str = ""
    limit: str = ""
    bar: Bar | None = None
    figures: Mapping[str, str] = field(default_factory=dict)
    pending: str = ""
    note: str = ""

    def measured(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures of the row from what its test recorded.

        Raises:
            KeyError: The test recorded nothing where the row expects a figure.
        """
        found = {figure: self._figure(figure, extra) for figure in FIGURES}
        ours, peer, limit = found["ours"], found["peer"], found["limit"]
        higher = self.better == "higher"
        if found["ratio"] is None and ours and peer:
            found["ratio"] = ours / peer if higher else peer / ours
        found["share"] = None if not (ours and limit) else ours / limit if higher else limit / ours
        holds = None if self.bar is None else self.bar.holds(found[self.bar.of])
        return found | {"holds": holds}

    def _figure(self, figure: str, extra: Mapping[str, Any]) -> Any:
        if self.figures and figure not in self.figures:
            return None
        path, value = self.figures.get(figure, figure), extra
        for key in path.split("."):
            if not isinstance(value, Mapping) or key not in value:
                if figure in self.figures or figure == "ours":
                    raise KeyError(f"{self.test} recorded no {path!r}, which row {self.name} takes as {figure!r}.")
                return None
            value = value[key]
        return value

    def published(self, extra: Mapping[str, Any], timing: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row as it stands in the results."""
        bar = self.bar and {
            key: value
            for key, value in (("of", self.bar.of), ("least", self.bar.least), ("most", self.bar.most))
            if value is not None
        }
        about = {"name": self.name, "part": self.part, "says": self.says, "unit": self.unit, "better": self.better}
        named = {"peer_name": self.peer, "limit_name": self.limit, "note": self.note}
        return about | self.measured(extra) | {key: words for key, words in named.items() if words} | {
            "bar": bar, "test": self.test, **timing, "details": dict(extra)
        }  # fmt: skip


def declared(file: Path = FILE) -> list[Row]:
    """Return the declared rows in their order."""
    rows, pending = [], yaml.safe_load(PENDING.read_text(encoding="utf-8")) or []
    reasons = {name: part["because"] for part in pending for name in part["rows"]}
    for part in yaml.safe_load(file.read_text(encoding="utf-8")):
        for name, values in part["rows"].items():
            given = dict(values)
            bar = Bar(**given.pop("bar")) if "bar" in given else None
            rows.append(Row(name=name, part=part["part"], bar=bar, pending=reasons.pop(name, ""), **given))
    if reasons:
        raise ValueError(f"{PENDING.name} names {sorted(reasons)}, which {file.name} does not declare.")
    return rows


def published(
    rows: Iterable[Row], measured: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Return `rows`, `further` and `missing` of the results.

    Args:
        rows: The declared rows.
        measured: (`extra_info`, timing) by test.
        skipped: Reasons of tests that were skipped.
    """
    found, missing, used = [], {}, set()
    for row in rows:
        if row.test in measured:
            # As the results will hold it: a number that names a figure is text in JSON.
            extra, timing = json.loads(json.dumps(measured[row.test]))
            used.add(row.test)
            try:
                found.append(row.published(extra, timing))
                continue
            except KeyError as error:
                missing[row.name] = str(error.args[0])
        else:
            missing[row.name] = skipped.get(row.test) or row.pending or f"{row.test} did not run"
    further = [
        {"test": test, **timing, "details": dict(extra)}
        for test, (extra, timing) in measured.items()
        if test not in used
    ]
    return {"rows": found, "further": further, "missing": missing}
