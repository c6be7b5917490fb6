"""What a repeated run says about metrics and verdicts that are no longer those of the last commit."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from workspace import commit, make_workspace

from flows.drift import drift, report, summary
from flows.engine.verify import MACHINE_CLASS

MACHINE = {name: "same" for name in MACHINE_CLASS}


def write_results(root: Path, slug: str, values: list[float], verdict: str = "reproduced", **machine: str) -> Path:
    folder = root / "results" / slug / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"arm": ["mean"] * 3, "seed": [0, 1, 2], "metric": ["error"] * 3, "at": [""] * 3, "value": values}
    pl.DataFrame(rows).write_parquet(folder / "metrics.parquet")
    said = {"machine": MACHINE | machine, "claims": [{"id": "mean-is-close", "verdict": verdict}]}
    (folder / "verdicts.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    root = make_workspace(tmp_path_factory.mktemp("drift") / "workspace", papers=2, git=True)
    for slug in ("toy-0", "toy-1"):
        write_results(root, slug, [1.0, 1.1, 0.9])
    commit(root, "results")
    return root


def test_equal_results_have_not_moved(committed):
    folders = [write_results(committed, slug, [1.0, 1.1, 0.9]) for slug in ("toy-0", "toy-1")]
    found = drift(committed, folders)
    assert [(each.paper, each.level, each.moved) for each in found] == [
        ("toy-0", "bit-exact", False), ("toy-1", "bit-exact", False),
    ]  # fmt: skip
    assert summary(found) == "0 of 2 variants moved."


def test_on_the_same_machine_the_last_bit_is_drift_and_on_another_one_the_seeds_decide(committed):
    folder = write_results(committed, "toy-0", [1.0 + 2**-50, 1.1, 0.9])
    assert drift(committed, [folder])[0].moved
    folder = write_results(committed, "toy-0", [1.02, 1.08, 0.93], gpu="another")
    [found] = drift(committed, [folder])
    assert (found.level, found.moved) == ("seeds", False)
    folder = write_results(committed, "toy-0", [9.0, 9.1, 9.2], gpu="another")
    [found] = drift(committed, [folder])
    assert found.moved
    assert "error of mean" in report([found])


def test_a_changed_verdict_is_drift_and_stands_in_the_report(committed):
    folder = write_results(committed, "toy-1", [1.0, 1.1, 0.9], verdict="contradicted")
    [found] = drift(committed, [folder])
    assert found.moved
    assert "claim mean-is-close: was reproduced, is contradicted" in report([found])
    assert summary([found]) == "1 of 1 variants moved: toy-1 / plain."


def test_results_that_were_never_committed_are_listed_and_no_drift(committed):
    folder = committed / "results" / "toy-1" / "full" / "plain"
    folder.mkdir(parents=True)
    for name in ("metrics.parquet", "verdicts.json"):
        (folder / name).write_bytes((committed / "results" / "toy-1" / "plain" / name).read_bytes())
    [found] = drift(committed, [folder])
    assert not found.moved
    assert "nothing is committed" in report([found])
    assert drift(committed, [committed / "results" / "toy-0" / "none"]) == []
