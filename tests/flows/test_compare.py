"""`tessera compare`: who stands where, what pairs, what is refused, and what the figure shows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
from judged import judge_with
from typer.testing import CliRunner
from workspace import REPOSITORY, edit, make_workspace, run_in, write

from components.errors import TesseraError
from flows.cli import app
from flows.compare import Block, NotComparable, compare, printed, refusals
from flows.compare_figure import draw

BOARD = """
toys:
  title: Toys
  study: toy
  data: numbers
  same: [steps]
  metrics: [error]
"""
ITEMS = np.random.default_rng(7).standard_normal(300)


def fill(shift: float, *, items: bool = True, conditions=(1, 2, 4), unit: str = ""):
    """Return what measures `error` around `shift`: the arm `median` is worse by 0.5, seeds differ by 0.1."""

    def measure(table, arm, seed):
        rng = np.random.default_rng([seed, len(arm), int(100 * shift)])
        value = shift + (0.5 if arm == "median" else 0.0) + 0.1 * np.random.default_rng(seed).standard_normal()
        for share in conditions:
            at = {"share": share}
            if items:
                table.add_items("error", value * share + ITEMS + 0.05 * rng.standard_normal(300), unit=unit, at=at)
            else:
                table.add("error", value * share + 0.01 * rng.standard_normal(), unit=unit, at=at, samples=300)
        table.add("count", 100 * shift, unit="", samples=1)

    return measure


@pytest.fixture
def root(tmp_path) -> Path:
    """Three toy papers on one data set: `toy-1` is worse than `toy-0`, `toy-2` has not run."""
    folder = make_workspace(tmp_path, papers=3, bases=0)
    write(folder, "dvc.yaml", "stages: {}\n")
    write(folder, "params/leaderboards.yaml", BOARD)
    for slug in ("toy-0", "toy-1", "toy-2"):
        edit(folder, f"params/{slug}/paper.yaml", "canonical: true, bases: []", "canonical: true, data: [numbers]")
        edit(folder, f"params/{slug}/paper.yaml", "at: {share: 1}, below: 3", "at: {share: 1}, below: 30")
    judge_with(folder, "toy-0", fill(1.0))
    judge_with(folder, "toy-1", fill(2.0))
    return folder


def names(block: Block) -> list[str]:
    return [f"{entry.paper} {entry.arm}" for entry in block.entries]


def test_arms_of_several_papers_are_ranked_and_compared_with_the_best(root):
    sheet = compare(root, ["toy-0", "toy-1"])
    assert (sheet.study, sheet.metric, sheet.title) == ("toy", "error", "error, lower is better")
    assert [block.at for block in sheet.blocks] == ["share=1", "share=2", "share=4"]
    first = sheet.blocks[0]
    assert names(first) == ["toy-0 mean", "toy-0 median", "toy-1 mean", "toy-1 median"]
    assert first.entries[0].against is None
    assert [entry.rank for entry in first.entries] == [1, 2, 2, 3]
    assert all(entry.against.pairing == "seeds and items" for entry in first.entries[1:])
    assert all(entry.against.improvement == 0 for entry in first.entries[1:])


def test_differences_are_those_of_the_paired_t_test_over_seeds_where_there_are_no_items(root):
    judge_with(root, "toy-0", fill(1.0, items=False))
    judge_with(root, "toy-1", fill(2.0, items=False))
    block = compare(root, ["toy-0", "toy-1"], at="share=2").blocks[0]
    best = block.entries[0]
    for entry in block.entries[1:]:
        truth = scipy.stats.ttest_rel(entry.quantity.values, best.quantity.values)
        interval = truth.confidence_interval(0.95)
        assert entry.against.pairing == "seeds"
        assert (entry.against.low, entry.against.high) == pytest.approx((interval.low, interval.high))
        assert entry.against.p_value == pytest.approx(truth.pvalue, rel=1e-6)


def test_test_items_that_both_papers_saw_make_the_difference_sharper(root):
    together = compare(root, ["toy-0", "toy-1"], at="share=1").blocks[0].entries[2].against
    for slug in ("toy-0", "toy-1"):
        (root / "results" / slug / "item-groups.parquet").unlink()
    apart = compare(root, ["toy-0", "toy-1"], at="share=1").blocks[0].entries[2].against
    assert (together.pairing, apart.pairing) == ("seeds and items", "seeds")
    assert together.difference == pytest.approx(apart.difference)
    assert together.high - together.low < 0.7 * (apart.high - apart.low)


def test_items_of_other_data_do_not_pair(root):
    edit(root, "params/toy-1/paper.yaml", "data: [numbers]", "data: [numbers, more-numbers]")
    sheet = compare(root, ["toy-0", "toy-1"])
    assert sheet.blocks[0].entries[2].against.pairing == "seeds"
    assert any("not quite the same data: toy-0 (plain) reads numbers;" in note for note in sheet.notes)


def test_another_budget_is_said(root):
    assert compare(root, ["toy-0", "toy-1"]).notes == ()
    edit(root, "params/toy-1/paper.yaml", "small: {minutes: 1", "small: {steps: 40, minutes: 1")
    assert compare(root, ["toy-0", "toy-1"]).notes == ("not the same steps: 20 in toy-0 (plain); 40 in toy-1 (plain)",)


def test_one_paper_compares_its_arms(root):
    sheet = compare(root, ["toy-0"])
    assert names(sheet.blocks[0]) == ["toy-0 mean", "toy-0 median"]
    assert sheet.others == ("count",)


def test_a_metric_without_a_better_direction_is_compared_with_the_first_and_not_ranked(root):
    sheet = compare(root, ["toy-0", "toy-1"], metric="count")
    entries = sheet.blocks[0].entries
    assert names(sheet.blocks[0])[0] == "toy-0 mean"
    assert {entry.rank for entry in entries} == {None}
    assert entries[2].against.difference == 100.0
    console_table = printed(sheet, sheet.blocks[0])
    assert "rank" not in [column.header for column in console_table.columns]


def test_too_few_seeds_have_no_interval_and_no_rank(root):
    edit(root, "params/toy-1/paper.yaml", "seeds: [0, 1, 2]", "seeds: [0]")
    judge_with(root, "toy-1", fill(2.0))
    block = compare(root, ["toy-0", "toy-1"]).blocks[0]
    assert [entry.rank for entry in block.entries] == [1, 2, None, None]
    assert refusals(block) == ["1 seed; a comparison needs 3 on each side"]


@pytest.mark.parametrize(
    "slugs, options, words",
    [
        (["toy-0", "toy-2"], {}, "toy-2 has no results in variant plain; run `tessera reproduce toy-2`"),
        (["toy-0"], {"metric": "eror"}, "Did you mean 'error'"),
        (["toy-0"], {"variant": "plane"}, "Did you mean 'plain'"),
        (["toy-0"], {"at": "share=3"}, "it was at share=1, share=2, share=4"),
    ],
)
def test_what_cannot_be_compared_is_said(root, slugs, options, words):
    with pytest.raises(NotComparable, match=words):
        compare(root, slugs, **options)


def test_papers_of_two_studies_or_of_other_data_are_refused(root):
    edit(root, "params/toy-1/paper.yaml", "data: [numbers]", "data: [letters]")
    with pytest.raises(NotComparable, match=r"toy-0 \(plain\) reads numbers, toy-1 \(plain\) reads letters"):
        compare(root, ["toy-0", "toy-1"])
    edit(root, "params/toy-1/paper.yaml", "study: toy", "study: decoding")
    with pytest.raises(NotComparable, match="toy-0 is of study toy and toy-1 is of study decoding"):
        compare(root, ["toy-0", "toy-1"])


def test_papers_that_never_measured_at_the_same_condition_are_refused(root):
    judge_with(root, "toy-1", fill(2.0, conditions=(1, 8)))
    assert [block.at for block in compare(root, ["toy-0", "toy-1"]).blocks] == ["share=1"]
    edit(root, "params/toy-1/paper.yaml", "share: 1", "share: 8")
    judge_with(root, "toy-1", fill(2.0, conditions=(8,)))
    with pytest.raises(NotComparable, match="at the same condition"):
        compare(root, ["toy-0", "toy-1"])


def test_two_units_of_one_metric_are_refused(root):
    judge_with(root, "toy-1", fill(2.0, unit="bits"))
    with pytest.raises(NotComparable, match=r"no unit per nothing and toy-1 \(plain\) in bits per nothing"):
        compare(root, ["toy-0", "toy-1"])


def texts(path: Path) -> list[str]:
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_along_a_number_the_figure_has_a_line_for_each_entry_and_text_stays_text(root, tmp_path):
    sheet = compare(root, ["toy-0", "toy-1"])
    path = draw(sheet, tmp_path / "figures" / "a.svg")
    assert {"share", "error", "toy-0: mean", "toy-1: median"} <= set(texts(path))
    assert "along share" in path.read_text()
    assert draw(sheet, tmp_path / "b.svg").read_bytes() == path.read_bytes()


def test_at_one_condition_the_figure_has_a_row_for_each_entry(root, tmp_path):
    one = draw(compare(root, ["toy-0"], at="share=2"), tmp_path / "a.svg")
    assert {"share=2", "error", "mean", "median"} <= set(texts(one))
    two = draw(compare(root, ["toy-0", "toy-1"], metric="count"), tmp_path / "b.svg")
    assert {"toy-0: mean", "toy-1: mean"} <= set(texts(two))


def test_the_command_prints_the_table_the_figure_and_what_is_missing_for_the_runs(root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("flows.cli.find_root", lambda: root)
    monkeypatch.setenv("COLUMNS", "150")
    run = CliRunner().invoke
    done = run(app, ["compare", "toy-0", "toy-1", "--metric", "error", "--at", "share=1"])
    assert done.exit_code == 0
    assert "error, lower is better, at share=1" in done.stdout
    assert "seeds and items" in done.stdout
    assert "also measured: count" in done.stdout
    assert "figure: site/compare/toy-0+toy-1-error.svg" in done.stdout
    assert (root / "site/compare/toy-0+toy-1-error.svg").is_file()
    assert "There is no mlflow.db here yet" in done.stdout
    assert isinstance(run(app, ["compare"]).exception, TesseraError)


def test_comparing_imports_neither_torch_nor_ray_prefect_mlflow_or_dvc():
    source = (
        "import sys\n"
        "from flows.compare_figure import draw\n"
        "from flows.engine.mlflow_page import runs_page\n"
        "print(sorted({'torch', 'ray', 'prefect', 'mlflow', 'dvc'} & set(sys.modules)))"
    )
    assert run_in(REPOSITORY, source) == "[]\n"
