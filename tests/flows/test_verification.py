"""`tessera verify` over many papers: what is rerun, what is noted, what is summed up; the reruns are stand-ins."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from workspace import command, commit, make_workspace, write

from flows import verification
from flows.engine.comparison import Comparison, Difference
from flows.engine.verify import RerunFailed, VerifyReport, WorkspaceFailed
from flows.ledger.verified import read
from flows.verification import NothingVerifiable, counted, plan, summary, targets, verify_papers


def put_results(root: Path, slug: str, variant: str, minutes: float = 2.0) -> None:
    record = {"paper": slug, "variant": variant, "profile": "small", "demo": False, "claims": [], "minutes": minutes}
    text = json.dumps(record | {"git_commit": "b" * 40, "stages": {}, "machine": {}})
    write(root, f"results/{slug}/{variant}/verdicts.json", text)


@pytest.fixture
def root(tmp_path) -> Path:
    """Three papers with results in one or two of their variants; the third has none."""
    folder = make_workspace(tmp_path / "workspace", papers=3, variants=2, bases=0, git=True)
    write(folder, "dvc.yaml", "stages: {}\n")
    put_results(folder, "toy-0", "plain")
    put_results(folder, "toy-0", "plain-1", minutes=3.0)
    put_results(folder, "toy-1", "plain")
    commit(folder, "results")
    return folder


def report(slug: str, variant: str, *outside: Difference, level: str = "bit-exact", stages=()) -> VerifyReport:
    return VerifyReport(
        paper=slug, variant=variant, commit="c" * 40, level=level, recorded_on={"threads": 1}, rerun_on={"threads": 1},
        comparison=Comparison(12, outside), stages=4, different_stages=tuple(stages), copied_data=(), uncommitted=False,
        seconds=30.0, results="b" * 40,
    )  # fmt: skip


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_what_has_results_can_be_verified_and_says_how_it_stood(root):
    found = targets(root, ["toy-0", "toy-1", "toy-2"])
    assert [(target.slug, target.variant, target.minutes) for target in found] == [
        ("toy-0", "plain", 2.0),
        ("toy-0", "plain-1", 3.0),
        ("toy-1", "plain", 2.0),
    ]
    assert {target.last for target in found} == {"not verified yet"}
    assert "toy-1" in shown(plan(found))
    assert [target.variant for target in targets(root, ["toy-0"], ["plain-1"])] == ["plain-1"]


def test_a_paper_without_results_or_a_variant_that_nobody_has_is_refused(root):
    with pytest.raises(NothingVerifiable, match="toy-2: there are no results"):
        targets(root, ["toy-2"])
    with pytest.raises(NothingVerifiable, match="Did you mean 'plain-1'"):
        targets(root, ["toy-0"], ["plain-2"])


def test_outcomes_are_noted_and_summed_up_and_a_failing_rerun_stops_none(root, monkeypatch):
    moved = Difference("mean", "error", "share=1", {0: 1.0}, {0: 2.0}, "not equal bit for bit")

    def rerun(_, slug, variant, *, run, against):
        if (slug, variant) == ("toy-0", "plain-1"):
            raise RerunFailed("RerunFailed: a stage broke " + "x" * 2000)
        return report(slug, variant, *([moved] if slug == "toy-1" else []))

    monkeypatch.setattr(verification, "verify", rerun)
    console = Console(file=io.StringIO(), width=160)
    outcomes = verify_papers(root, targets(root, ["toy-0", "toy-1"]), console=console)
    assert [found.state for _, found in outcomes] == ["confirmed", "failed", "moved"]
    assert counted(outcomes) == "1 confirmed, 1 moved, 1 failed"
    assert all(word in shown(summary(outcomes)) for word in ("toy-1", "moved", "bit-exact"))
    noted = read(root, "toy-0") | {"other": read(root, "toy-1")["plain"]}
    assert (noted["plain"].state, noted["plain"].metrics, noted["plain"].machine_class) == (
        "confirmed",
        12,
        {"threads": 1},
    )
    assert noted["plain"].results == "b" * 40
    assert noted["other"].moved == (str(moved),)
    assert noted["plain-1"].state == "failed"
    assert len(noted["plain-1"].says) <= 500
    assert [target.last[:9] for target in targets(root, ["toy-0"])] == ["confirmed", "failed 20"]


def test_equal_metrics_with_another_output_count_as_moved_on_the_same_machine_class(root, monkeypatch):
    other = report("toy-0", "plain", stages=["plain-train-mean-s0"])
    monkeypatch.setattr(verification, "verify", lambda *_, **__: other)
    console = Console(file=io.StringIO())
    ((_, found),) = verify_papers(root, targets(root, ["toy-0"], ["plain"]), console=console)
    assert (found.state, found.moved) == ("moved", ("output of stage plain-train-mean-s0 differs",))


def test_each_rerun_adds_a_line(root, monkeypatch):
    monkeypatch.setattr(verification, "verify", lambda _, slug, variant, **__: report(slug, variant))
    chosen = targets(root, ["toy-1"])
    for count in (1, 2):
        verify_papers(root, chosen, console=Console(file=io.StringIO()))
        assert (root / "results/toy-1/verifications.jsonl").read_text().count("\n") == count


def test_outside_git_nothing_is_noted(root, tmp_path):
    folder = make_workspace(tmp_path / "plain", papers=1, bases=0)
    put_results(folder, "toy-0", "plain")
    with pytest.raises(WorkspaceFailed, match="needs a git checkout"):
        verify_papers(folder, targets(folder, ["toy-0"]), console=Console(file=io.StringIO()))
    assert not (folder / "results/toy-0/verifications.jsonl").exists()


def test_the_dry_run_says_what_would_be_rerun_and_how_long_it_took(root):
    said = command(root, sys.executable, "-m", "flows.cli", "verify", "--all", "--dry-run").stdout
    assert "3 variants would be rerun; their stages took 7 minutes." in said
    refused = command(root, sys.executable, "-m", "flows.cli", "verify", check=False)
    assert refused.returncode == 2
    assert "Name at least one paper, or --all." in refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_papers_against_their_committed_results_and_against_a_folder_elsewhere(tmp_path):
    root = make_workspace(tmp_path / "workspace", papers=2, bases=0, code=True, dvc=True)
    write(root, "pyproject.toml", "")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n*.db\n__pycache__/\n")
    tessera = (sys.executable, "-m", "flows.cli")
    command(root, *tessera, "reproduce", "--all", timeout=600)
    commit(root, "results")
    kept = tmp_path / "kept"
    command(root, "cp", "-r", "results", str(kept))
    table = root / "results" / "toy-1" / "plain" / "metrics.parquet"
    pl.read_parquet(table).with_columns(pl.col("value") + 1e-9).write_parquet(table)
    commit(root, "forged")
    ended = command(root, *tessera, "verify", "--all", "--against", "results/", check=False, timeout=600)
    assert ended.returncode == 1
    assert "1 confirmed, 1 moved." in ended.stdout
    assert read(root, "toy-0")["plain"].state == "confirmed"
    assert read(root, "toy-1")["plain"].state == "moved"
    assert len(read(root, "toy-1")["plain"].moved) == read(root, "toy-1")["plain"].metrics == 12
    said = command(root, *tessera, "verify", "toy-1", "--against", str(kept), timeout=600).stdout
    assert "1 confirmed." in said
    assert "not committed" not in said
    assert read(root, "toy-1")["plain"].against == str(kept)
