"""Group sums kept in git pair items across papers as the items themselves would."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics.tables import MetricTable
from flows.declarations.stages import plan_stages
from flows.ledger import item_groups
from flows.ledger.comparison import compare, recorded
from flows.ledger.measurements import Measurements


def run_arms(root, paper, items, values):
    """Write evaluations of the arms of variant shapes; values(arm, seed) gives one number per item."""
    runs = {}
    for stage in plan_stages(paper, "shapes", "small"):
        if stage.kind != "evaluate":
            continue
        table = MetricTable()
        table.add_items("psnr", values(stage.arm, stage.seed), unit="dB", items=items, at={"k": 8})
        table.add("fd", 1.0, unit="", samples=10)
        (root / stage.output).mkdir(parents=True, exist_ok=True)
        table.write(root / stage.output)
        runs[stage.arm, stage.seed] = root / stage.output
    return Measurements(runs)


def compared(root, paper, measured, arms=("method", "baseline")):
    kept = item_groups.read(root, paper.slug).partition_by(*item_groups.KEYS, as_dict=True)
    sides = [
        item_groups.paired_rows(
            kept["small", "shapes", arm, "psnr", "k=8"], recorded(measured.frame(), arm, "psnr", "k=8", test_set=arm)
        )
        for arm in arms
    ]
    return compare(*sides, "higher")


def test_up_to_as_many_items_as_groups_nothing_is_lost(tmp_path, make_paper):
    paper, hard = make_paper(), 5 * np.random.default_rng(0).standard_normal(40)
    draw = lambda arm, seed: hard + np.random.default_rng([len(arm), seed]).standard_normal(40)  # noqa: E731
    measured = run_arms(tmp_path, paper, [f"image {i}" for i in range(40)], draw)
    assert item_groups.write(tmp_path, paper, "shapes", "small", {"psnr"})
    exact = compare(*(measured.replicates(arm, "psnr", {"k": 8}) for arm in ("method", "baseline")), "higher")
    found = compared(tmp_path, paper, measured)
    assert found.pairing == "seeds and items"
    assert found.spread.items == pytest.approx(exact.spread.items, rel=1e-5)
    assert (found.difference, found.low) == pytest.approx((exact.difference, exact.low), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(200, 3000), st.integers(0, 10_000))
def test_with_many_items_the_shared_variance_is_that_of_the_items_up_to_its_own_noise(count, seed):
    """64 group sums estimate a variance with 63 degrees of freedom: within 2.5 times either way, far beyond 99.99%."""
    rng = np.random.default_rng(seed)
    influence = rng.standard_normal(count)
    influence = (influence - influence.mean()) / np.sqrt(count * (count - 1))
    _, sums = item_groups._summed([f"item-{seed}-{i}" for i in range(count)], influence)
    assert len(sums) == item_groups.GROUPS
    assert 1 / 2.5 < (sums**2).sum() / (influence**2).sum() < 2.5


def test_group_sums_have_the_variance_of_the_items_in_expectation():
    rng = np.random.default_rng(3)
    ratios = []
    for draw in range(3000):
        influence = rng.standard_normal(300)
        influence -= influence.mean()
        _, sums = item_groups._summed([f"{draw}-{i}" for i in range(300)], influence)
        ratios.append((sums**2).sum() / (influence**2).sum())
    assert np.mean(ratios) == pytest.approx(1.0, abs=4 * np.std(ratios) / np.sqrt(3000))


def test_two_papers_on_the_same_hard_items_are_told_apart_from_what_git_holds(tmp_path, make_paper):
    hard = 5 * np.random.default_rng(1).standard_normal(1000)
    items = [f"image {i}" for i in range(1000)]
    gain = {"method": 0.2}
    paper = make_paper()
    measured = run_arms(
        tmp_path,
        paper,
        items,
        lambda arm, seed: hard + gain.get(arm, 0) + 0.3 * np.random.default_rng([len(arm), seed]).standard_normal(1000),
    )
    item_groups.write(tmp_path, paper, "shapes", "small", {"psnr"})
    with_items = compared(tmp_path, paper, measured)
    sides = [recorded(measured.frame(), arm, "psnr", "k=8", test_set=arm) for arm in ("method", "baseline")]
    without = compare(*sides, "higher")
    assert with_items.low > 0
    assert without.low < 0 < without.high
    assert with_items.low < 0.2 < with_items.high


def test_only_asked_metrics_with_items_are_kept_and_another_variant_stays(tmp_path, make_paper):
    paper = make_paper()
    run_arms(tmp_path, paper, ["a", "b"], lambda arm, seed: [1.0 + seed, 2.0])
    assert item_groups.write(tmp_path, paper, "shapes", "small", {"psnr", "fd"})
    frame = item_groups.read(tmp_path, paper.slug)
    assert set(frame["metric"]) == {"psnr"}
    assert not item_groups.write(tmp_path, paper, "shapes", "small", {"psnr"})
    assert not item_groups.write(tmp_path, paper, "digits", "small", {"psnr"})  # nothing has run
    assert item_groups.read(tmp_path, paper.slug).equals(frame)
    assert item_groups.write(tmp_path, paper, "shapes", "small", set())
    assert item_groups.read(tmp_path, paper.slug).is_empty()


def test_sums_of_other_runs_than_the_results_are_not_used(tmp_path, make_paper):
    paper = make_paper()
    measured = run_arms(tmp_path, paper, ["a", "b"], lambda arm, seed: [1.0 + seed, 2.0])
    item_groups.write(tmp_path, paper, "shapes", "small", {"psnr"})
    frame = item_groups.read(tmp_path, paper.slug)
    results = recorded(measured.frame(), "method", "psnr", "k=8")
    kept = frame.partition_by(*item_groups.KEYS, as_dict=True)["small", "shapes", "method", "psnr", "k=8"]
    same = item_groups.paired(frame, results, "small", "shapes", "method", "psnr", "k=8")
    assert same.items == ("item a", "item b")
    moved = recorded(measured.frame().with_columns(pl.col("value") + 1e-3), "method", "psnr", "k=8")
    assert item_groups.paired_rows(kept, moved) is moved
    assert item_groups.paired_rows(None, results) is results
    assert item_groups.paired(frame, results, "full", "shapes", "method", "psnr", "k=8") is results
