"""The rows of `make bench` are all there: declared, with a test, and in the results once they were measured."""

from __future__ import annotations

import ast
import json
import math
import random
from pathlib import Path

import pytest
import turns
from declared_rows import PENDING, Bar, Row, declared, published

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results" / "benchmarks.json"
ROWS = declared()

REQUIRED = {
    "Orchestration": (
        "21-stages 21-stages-cold 21-stages-paraffin 60-torch-stages 1190-stages-nothing-stale 119-papers-smoke "
        "efficiency-2s efficiency-0.2s"
    ),
    "Quantizers": (
        "vq-1024 vq-8192 vq-65536 cosine-vq-1024 rvq-8x1024 fsq-64000 lfq-12-bits lfq-entropy-8-bits search-1024 "
        "search-8192 search-65536 search-65536-memory vq-1024-forward vq-1024-backward vq-1024-memory "
        "vq-8192-forward vq-8192-backward vq-8192-memory rvq-8x1024-forward rvq-8x1024-backward rvq-8x1024-memory "
        "fsq-64000-forward fsq-64000-backward fsq-64000-memory lfq-12-bits-forward lfq-12-bits-backward "
        "lfq-12-bits-memory"
    ),
    "Diffusion": "training-step sampling-64-steps block-sampling",
    "Language models": "training generation-1 generation-16 speculative-prompt-lookup speculative-recycling",
    "Token merging and pruning": (
        "merging-0.9 merging-0.7 merging-end-to-end-0.9 merging-end-to-end-0.8 pruning-16 pruning-64 pruning-end-to-end"
    ),
    "Bytes and tokenizers": (
        "exact exact-calls fast train-1024 train-8192 encode-bpe encode-bpe-tiktoken encode-longest-match "
        "encode-fewest-tokens"
    ),
    "Audio": "encode decode decode-stream log-mel ssl-features",
    "Data": (
        "images images-datasets audio audio-datasets text text-datasets waiting-images waiting-audio waiting-text"
    ),
    "Entropy coding": "bits encode decode",
    "Memory": "small-stages",
    "How cost grows": "stages stages-memory codebook codebook-memory sequence sequence-memory workers",
}


@pytest.mark.parametrize("part", REQUIRED)
def test_every_row_that_must_be_there_is_declared_under_its_name(part):
    names = {row.name.partition("/")[2] for row in ROWS if row.part == part}
    assert set(REQUIRED[part].split()) - names == set()


def test_names_are_unique_and_every_figure_that_a_bar_is_about_can_be_known():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.better in ("higher", "lower"), row.name
        assert row.bar is None or (row.bar.of in ("ours", "ratio", "share", "value") and row.bar != Bar(row.bar.of))
        assert row.bar is None or row.bar.of != "ratio" or row.peer, row.name


def test_every_declared_row_has_its_test():
    functions = {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    lacking = {row.name for row in ROWS if row.test.partition("[")[0] not in functions}
    # What is pending may be written by somebody else later.
    assert lacking <= {row.name for row in ROWS if row.pending}


def test_a_row_is_either_in_the_results_or_pending_with_a_reason():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    measured, pending = {row["name"] for row in found["rows"]}, {row.name for row in ROWS if row.pending}
    assert {row.name for row in ROWS} - pending - measured == set(), "gone from the results"
    assert pending & measured == set(), f"measured by now: take them out of {PENDING.name}"
    assert measured <= {row.name for row in ROWS}
    assert set(found["missing"]) == pending


def test_figures_are_found_where_a_row_says_and_a_ratio_above_one_is_ahead():
    figures = {"ours": "warm.all", "peer": "theirs", "limit": "bound"}
    row = Row("a/b", "A", "what", "test_x", "s", "lower", "peer", "limit", Bar("ratio", least=2), figures)
    found = row.measured({"warm": {"all": 2.0}, "theirs": 5.0, "bound": 1.0, "ratio": 9.0})
    assert (found["ours"], found["ratio"], found["share"], found["holds"]) == (2.0, 2.5, 0.5, True)
    assert row.measured({"warm": {"all": 4.0}, "theirs": 5.0, "bound": 1.0})["holds"] is False
    with pytest.raises(KeyError, match=r"no 'warm\.all'"):
        row.measured({"peer": 5.0})
    rate = Row("a/c", "A", "what", "test_x", "x/s", "higher", "peer", bar=Bar("ours", most=3))
    assert rate.measured({"ours": 6.0, "peer": 3.0})["ratio"] == 2.0
    assert rate.measured({"ours": 6.0, "peer": 3.0})["holds"] is False


def test_results_name_what_was_not_measured_with_the_reason():
    rows = [Row(f"a/{name}", "A", name, f"test_{name}", "s", "lower") for name in ("there", "skipped", "absent")]
    timing = {"median_seconds": 1.0}
    measured = {"test_there": ({"ours": 1.0}, timing), "test_other": ({"x": 1}, timing)}
    found = published(rows, measured, {"test_skipped": "the peer is not installed"})
    assert [row["name"] for row in found["rows"]] == ["a/there"]
    assert [row["test"] for row in found["further"]] == ["test_other"]
    assert found["missing"] == {"a/skipped": "the peer is not installed", "a/absent": "test_absent did not run"}


def test_a_figure_that_a_number_names_is_found_by_its_text():
    row = Row("a/b", "A", "what", "test_x", "times", "higher", figures={"ours": "gains.1024"})
    found = published([row], {"test_x": ({"gains": {256: 0.9, 1024: 1.5}}, {"median_seconds": 1.0})}, {})
    assert found["missing"] == {}
    assert found["rows"][0]["ours"] == 1.5


@pytest.mark.parametrize("count", [6, 7, 11, 20])
def test_intervals_of_a_median_hold_it_in_95_of_100_draws(count):
    draws = random.Random(0)
    held = 0
    for _ in range(4000):
        low, high = turns.interval([draws.gauss(0, 1) for _ in range(count)])
        held += low <= 0 <= high
    assert held / 4000 > 0.94


def test_powers_are_fitted_in_logarithms():
    sizes = [1, 4, 16, 64]
    assert turns.exponent(sizes, [3 * math.sqrt(size) for size in sizes]) == pytest.approx(0.5)
    assert turns.exponent(sizes, [7 / size for size in sizes]) == pytest.approx(-1)


def test_memory_of_work_is_what_its_tensors_take_at_once():
    import torch

    def work() -> None:
        first = torch.zeros(1000, 250)  # a million bytes
        second = first + 1
        del first
        torch.add(second, 1)

    assert turns.peak_bytes(work) == pytest.approx(2e6, rel=0.01)
