"""The speed page: what the results of `make bench` become, and how budgets of minutes are judged."""

from __future__ import annotations

import json

import pytest

from flows.ledger.benchmarks import bar_words, benchmark_view, read_benchmarks
from flows.ledger.budgets import Budget, highest_peak
from flows.ledger.results import ResultsError


def row(name: str, part: str, **figures) -> dict:
    about = {"says": "what", "unit": "MB/s", "better": "higher", "bar": None, "test": "test_x", "rounds": 5}
    none = dict.fromkeys(("ours", "peer", "limit", "ratio", "interval", "value", "share", "holds"))
    return {"name": name, "part": part} | about | none | figures


def results(*rows: dict) -> dict:
    machine = {"processor": "EPYC", "cores": 2, "system": "Linux", "python": "3.11.7"}
    return {"date": "2026-11-26T04:12:25+00:00", "machine": machine, "versions": {"torch": "2.13"}, "rows": list(rows)}


def test_rows_stand_under_their_parts_and_count_bars_and_who_is_ahead():
    found = results(
        row("a/x", "A", ours=12_345.6, peer=5000.0, ratio=2.469, bar={"of": "ratio", "least": 1.5}, holds=True),
        row("a/y", "A", ours=1.0, peer=2.0, ratio=0.5, interval=[0.4, 0.6]),
        row("b/z", "B", ours=0.5, limit=2.0, share=0.25, bar={"of": "ours", "least": 1.0}, holds=False),
    )
    view = benchmark_view(found | {"missing": {"b/w": "no peer", "b/v": "no peer", "b/u": "not run"}})
    assert [(part["name"], len(part["rows"])) for part in view["parts"]] == [("A", 2), ("B", 1)]
    assert (view["held"], view["bars"], view["ahead"], view["compared"]) == (1, 2, 1, 2)
    first, second, third = (row for part in view["parts"] for row in part["rows"])
    assert (first["ours"], first["peer"], first["ratio"], first["ahead"]) == ("12,346", "5000", "2.47", True)
    assert (second["interval"], second["ahead"], second["bar"]) == ("0.4 to 0.6", False, "")
    assert (third["share"], third["ratio"], third["bar"]) == ("25%", "", "at least 1 MB/s")
    assert view["machine"] == "EPYC, 2 cores, Linux"
    assert view["missing"] == {"no peer": ["b/w", "b/v"], "not run": ["b/u"]}


def test_bars_are_spelled_with_what_they_are_about():
    assert bar_words({"of": "ratio", "least": 1.5}, "s") == "at least 1.5 × the peer"
    assert bar_words({"of": "ours", "most": 4.0}, "s") == "at most 4 s"
    assert bar_words({"of": "share", "least": 0.3}, "s") == "at least 30% of the limit"
    assert bar_words({"of": "ours", "least": 1.0, "most": 2.0}, "") == "at least 1 and at most 2"
    assert bar_words(None, "s") == ""


def test_results_that_cannot_be_read_are_refused_and_none_are_none(tmp_path):
    assert read_benchmarks(tmp_path) is None
    assert benchmark_view(None) is None
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "benchmarks.json"
    path.write_text("{")
    with pytest.raises(ResultsError, match="restore it"):
        read_benchmarks(tmp_path)
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(ResultsError, match="make bench"):
        read_benchmarks(tmp_path)


def budget(minutes: float, own: float, declared: float | None = 10.0, stages: int = 3, peak: float = 1.0) -> Budget:
    return Budget("paper", "Paper", "data", declared, minutes, own, stages, 3, peak, "stage")


def test_a_budget_over_by_wall_time_alone_waited_for_others():
    assert budget(12.9, 12.0).state == "within"
    assert budget(20.0, 9.0).state == "waited"
    assert budget(20.0, 14.0).state == "over"
    assert budget(0.0, 0.0, stages=0).state == "not recorded"
    assert budget(5.0, 4.0, declared=None).state == "not declared"
    assert budget(15.0, 1.0).ratio == 1.5
    assert highest_peak([budget(1, 1, peak=1.5), budget(1, 1, peak=2.5), budget(1, 1, stages=0, peak=9)]).peak == 2.5
    assert highest_peak([]) is None
