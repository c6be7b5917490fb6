"""Leaderboards: who joins, what is ranked with what, and which entries nothing dominates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.metrics.tables import MetricTable, write_parquet
from flows.declarations.leaderboards import Rate
from flows.declarations.metric import Metric
from flows.declarations.workspace import Workspace
from flows.ledger.leaderboards import Entry, _front, leaderboards
from flows.ledger.measurements import Measurements
from flows.ledger.results import Summary, read_records
from flows.ledger.statistics import Measurement, replicates
from flows.ledger.verdicts import constant_arms

RATE = {
    "says": "code length",
    "unit": "bits/pixel",
    "formula": "k * log2(codebook_size) / image_side ** 2",
    "unless": {"k": "tokens"},
}
BOARD = {
    "title": "Images",
    "study": "image-tokenizer",
    "data": "cifar10",
    "where": {"image_side": 32},
    "same": ["steps"],
    "rate": RATE,
    "metrics": ["psnr", "codebook_usage"],
}


def declare(root, slug, *, arms=None, data="cifar10", **parameters):
    folder = root / "params" / slug
    folder.mkdir(parents=True, exist_ok=True)
    paper = {
        "slug": slug,
        "title": slug.title(),
        "family": "image",
        "study": "image-tokenizer",
        "story": "-",
        "seeds": [0, 1, 2],
        "variants": {"images": {"canonical": True, "data": [data]}, "demo": {"demo": True, "data": [data]}},
        "arms": arms or {"method": {}, "single": {"seeds": [0]}},
        "profiles": {"small": parameters, "full": {"steps": 9}},
        "claims": [{"id": "c", "says": "-", "cites": "-", "scope": "full-only", "needs": "-"}],
    }
    (folder / "paper.yaml").write_text(yaml.safe_dump(paper))


def judge(root, slug, fill, *, variant="images", profile="small"):
    """Write what a judge stage leaves of metrics; `fill(table, arm, seed)` measures."""
    paper = Workspace(root).paper(slug)
    runs = {}
    for arm in paper.arms_of(variant):
        for seed in paper.seeds_of(variant, arm):
            table = MetricTable()
            fill(table, arm, seed)
            runs[arm, seed] = root / "runs" / slug / variant / profile / arm / str(seed)
            runs[arm, seed].mkdir(parents=True)
            table.write(runs[arm, seed])
    measured = Measurements(runs, constant_arms(paper))
    results = root / "results" / slug / ("full" if profile == "full" else "") / variant
    results.mkdir(parents=True)
    write_parquet(measured.frame(), results / "metrics.parquet")
    write_parquet(measured.summary(), results / "summary.parquet")
    record = {"variant": variant, "profile": profile, "claims": [], "demo": variant == "demo"}
    (results / "verdicts.json").write_text(json.dumps(record))


def quality(base, lengths=(8, 16, 32)):
    def fill(table, arm, seed):
        for k in lengths:
            value = base + math.log2(k) + 0.01 * seed
            table.add("psnr", value, unit="dB", at={"k": k}, samples=100, variance=1e-6)
        table.add("codebook_usage", 0.5, unit="share", samples=100)

    return fill


def boards(root, board=None):
    (root / "params").mkdir(exist_ok=True)
    (root / "params" / "leaderboards.yaml").write_text(yaml.safe_dump({"images": BOARD | (board or {})}))
    workspace = Workspace(root)
    (found,) = leaderboards(workspace, {slug: read_records(root, workspace.paper(slug)) for slug in workspace.slugs})
    return found


def placed(board, metric="psnr"):
    """(rate, paper, arm, rank) of every entry of a metric."""
    return [
        (entry.rate, entry.slug, entry.arm, entry.rank)
        for panel in board.panels
        if panel.metric == metric
        for entry in panel.entries
    ]


def test_a_paper_joins_by_being_run_and_nothing_else(tmp_path):
    declare(tmp_path, "first")
    declare(tmp_path, "second")
    judge(tmp_path, "first", quality(10))
    assert boards(tmp_path).papers == ("first",)
    judge(tmp_path, "second", quality(12))
    board = boards(tmp_path)
    assert set(board.papers) == {"first", "second"}
    assert board.missing == ()
    at_full = [entry for entry in placed(board) if entry[0] == pytest.approx(32 * 9 / 1024)]
    assert [entry[1:] for entry in at_full] == [
        ("second", "method", 1),
        ("first", "method", 2),
        ("second", "single", None),
        ("first", "single", None),
    ]


def test_what_the_rate_does_not_find_in_the_condition_it_takes_from_the_parameters(tmp_path):
    declare(tmp_path, "first", tokens=16)
    judge(tmp_path, "first", quality(10))
    rates = {rate for rate, *_ in placed(boards(tmp_path), "codebook_usage")}
    assert sorted(rates) == pytest.approx([16 * 9 / 1024])
    assert sorted({rate for rate, *_ in placed(boards(tmp_path))}) == pytest.approx([k * 9 / 1024 for k in (8, 16, 32)])


def test_another_budget_is_another_panel_and_another_rank(tmp_path):
    declare(tmp_path, "short", steps=10)
    declare(tmp_path, "long", steps=20)
    judge(tmp_path, "short", quality(10))
    judge(tmp_path, "long", quality(12))
    board = boards(tmp_path)
    assert [panel.budget for panel in board.panels if panel.metric == "psnr"] == [(("steps", 10),), (("steps", 20),)]
    assert {rank for *_, rank in placed(board)} == {1, None}


@pytest.mark.parametrize(
    "changes, reason",
    [({"image_side": 64}, "no arm has image_side = 32"), ({"codebook_size": 4, "tokens": 8}, "")],
)
def test_a_paper_with_other_parameters_stays_away_and_the_page_can_say_why(tmp_path, changes, reason):
    declare(tmp_path, "other", **changes)
    judge(tmp_path, "other", quality(10))
    assert dict(boards(tmp_path).missing).get("other", "") == reason


def test_other_data_demos_and_unknown_rates_do_not_join(tmp_path):
    declare(tmp_path, "elsewhere", data="photos")
    judge(tmp_path, "elsewhere", quality(10))
    declare(tmp_path, "first")
    judge(tmp_path, "first", quality(10), variant="demo")
    assert boards(tmp_path).papers == ()
    judge(tmp_path, "first", quality(10))
    board = boards(tmp_path, {"rate": RATE | {"formula": "bytes * 8"}})
    assert board.papers == ()
    assert "'bytes' has no number" in dict(board.missing)["first"]


def test_the_part_of_a_condition_that_the_rate_does_not_follow_makes_a_panel_of_its_own(tmp_path):
    declare(tmp_path, "first")

    def fill(table, arm, seed):
        for source in ("a", "b"):
            for k in (8, 16):
                table.add("psnr", k + 0.01 * seed, unit="dB", at={"k": k, "source": source}, samples=10)

    judge(tmp_path, "first", fill)
    board = boards(tmp_path)
    assert [panel.at for panel in board.panels] == ["source=a", "source=b"]
    assert all(len(panel.rankings) == 2 for panel in board.panels)


def test_without_a_rate_every_condition_has_its_ranking(tmp_path):
    declare(tmp_path, "first")
    judge(tmp_path, "first", quality(10))
    board = boards(tmp_path, {"rate": None})
    (panel,) = [panel for panel in board.panels if panel.metric == "psnr"]
    assert [ranking.at for ranking in panel.rankings] == ["k=16", "k=32", "k=8"]
    assert not any(entry.front for entry in panel.entries)
    board = boards(tmp_path, {"rate": None, "at": {"k": 8}, "metrics": ["psnr"]})
    assert [ranking.at for panel in board.panels for ranking in panel.rankings] == ["k=8"]


def test_a_rate_can_be_measured(tmp_path):
    declare(tmp_path, "first")

    def fill(table, arm, seed):
        for k in (8, 16):
            table.add("psnr", k + 0.01 * seed, unit="dB", at={"k": k}, samples=10)
            table.add("payload_bytes", 10 * k, unit="bytes", at={"k": k}, samples=10)

    judge(tmp_path, "first", fill)
    rate = {"says": "bytes", "unit": "bytes", "metric": "payload_bytes"}
    board = boards(tmp_path, {"rate": rate, "metrics": ["psnr"]})
    assert {(panel.at, entry.rate) for panel in board.panels for entry in panel.entries} == {("", 80.0), ("", 160.0)}


def test_a_rate_measured_at_a_part_of_the_condition_leaves_the_rest_to_panels(tmp_path):
    declare(tmp_path, "first")

    def fill(table, arm, seed):
        for k in (8, 16):
            for split in ("test", "val"):
                table.add("psnr", k + 0.01 * seed, unit="dB", at={"k": k, "split": split}, samples=10)
            table.add("payload_bytes", 10 * k, unit="bytes", at={"k": k}, samples=10)
            table.add("payload_bytes", 99, unit="bytes", at={"k": k, "split": "other"}, samples=10)

    judge(tmp_path, "first", fill)
    rate = {"says": "bytes", "unit": "bytes", "metric": "payload_bytes"}
    board = boards(tmp_path, {"rate": rate, "metrics": ["psnr"]})
    assert {(panel.at, entry.rate) for panel in board.panels for entry in panel.entries} == {
        ("split=test", 80.0),
        ("split=test", 160.0),
        ("split=val", 80.0),
        ("split=val", 160.0),
    }


def test_an_entry_whose_rate_was_measured_elsewhere_only_does_not_join(tmp_path):
    declare(tmp_path, "first")

    def fill(table, arm, seed):
        table.add("psnr", 1.0 + 0.01 * seed, unit="dB", at={"k": 8}, samples=10)
        table.add("payload_bytes", 10, unit="bytes", at={"k": 16}, samples=10)

    judge(tmp_path, "first", fill)
    rate = {"says": "bytes", "unit": "bytes", "metric": "payload_bytes"}
    board = boards(tmp_path, {"rate": rate, "metrics": ["psnr"]})
    assert board.panels == ()
    assert board.missing == (("first", "payload_bytes was not measured"),)


def test_a_run_at_full_scale_is_an_entry_of_its_own_budget(tmp_path):
    declare(tmp_path, "first", steps=5)
    judge(tmp_path, "first", quality(10))
    judge(tmp_path, "first", quality(20), profile="full")
    board = boards(tmp_path)
    assert {(dict(panel.budget)["steps"], entry.profile) for panel in board.panels for entry in panel.entries} == {
        (5, "small"),
        (9, "full"),
    }


def entry(rate, mean, seeds=3):
    measurements = [Measurement(seed, (), np.array([mean]), 10) for seed in range(seeds)]
    summary = Summary("a", "m", "", mean, mean, mean, seeds, 10, "", "", 0.0)
    return Entry("p", "v", "a", "small", "", rate, summary, replicates(measurements, constant=False, source=""))


POINT = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 3, 3]))


@given(
    st.lists(POINT, min_size=1, max_size=12), st.sampled_from(["higher", "lower"]), st.sampled_from(["lower", "higher"])
)
def test_the_front_is_what_no_entry_dominates(points, better, cheaper):
    entries = [entry(float(rate), float(mean), seeds) for rate, mean, seeds in points]
    found = _front(entries, Metric("", better, "m"), Rate(says="r", unit="", better=cheaper, metric="x"))
    able = [one for one in entries if len(one.quantity.values) >= 3]
    cost = lambda one: one.rate if cheaper == "lower" else -one.rate  # noqa: E731
    good = lambda one: one.summary.mean if better == "higher" else -one.summary.mean  # noqa: E731
    undominated = {
        (cost(one), good(one))
        for one in able
        if not any(
            cost(other) <= cost(one)
            and good(other) >= good(one)
            and (cost(other) < cost(one) or good(other) > good(one))
            for other in able
        )
    }
    chosen = [one for one in entries if id(one) in found]
    assert {(cost(one), good(one)) for one in chosen} == undominated
    assert all(len(one.quantity.values) >= 3 for one in chosen)
