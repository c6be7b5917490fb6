"""`tessera show` explains a paper: claims, arms, stages, cost and state, before and after it ran."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from judged import judge_with
from rich.console import Console
from workspace import REPOSITORY, edit, make_workspace, run_in, write

from flows.declarations.workspace import UnknownPaper
from flows.ledger.verified import Verification
from flows.ledger.verified import write as note
from flows.overview import show
from flows.scaffold import start_paper

TERMINAL = {"force_terminal": True, "color_system": None, "soft_wrap": False, "width": 120}


@pytest.fixture
def root(tmp_path) -> Path:
    folder = make_workspace(tmp_path, papers=1, arms=3, bases=1, variants=2)
    write(folder, "dvc.yaml", "stages: {}\n")
    edit(folder, "params/toy-0/paper.yaml", "median: {says: the median,", "median: {says: the median, uses: mean,")
    return folder


def shown(root: Path, slug: str = "toy-0", **options) -> str:
    options = {"soft_wrap": True, "width": 200} | options
    console = Console(file=io.StringIO(), highlight=False, **options)
    show(root, slug, console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def fill(table, arm, seed):
    table.add("error", 0.5 + seed / 10, unit="", at={"share": 1}, samples=20)


def test_before_a_run_it_says_what_is_claimed_what_would_run_and_that_nothing_did(root):
    said = shown(root)
    assert "Toy paper toy-0\ntoy-0  family text  study toy" in said
    assert "mean-is-close  not run yet  (Section 1)" in said
    assert "  test  error(mean) at share=1 < 3" in said
    assert "  needs  a million numbers" in said
    assert "Variant plain (canonical)" in said
    assert "Variant plain-1 (further evidence)" in said
    assert "reads   base-constant-0" in said
    assert "runs    train mean x3 -> evaluate mean x3, median x3" in said
    assert "runs    train mean_2 x3 -> evaluate mean_2 x3" in said
    assert "judges  plain-judge -> results/toy-0/plain  (16 stages in all)" in said
    assert "cost    1 minutes declared for two cores" in said
    assert said.count("state   not run yet") == 2
    assert "that of mean" in said


def test_after_a_run_it_says_verdicts_numbers_cost_state_and_the_last_verification(root):
    output = judge_with(root, "toy-0", fill)
    record = json.loads((output / "verdicts.json").read_text())
    (output / "verdicts.json").write_text(json.dumps(record | {"minutes": 2.5}))
    log = root / "runs/toy-0/plain/train/mean/s1/log"
    log.mkdir(parents=True)
    machine = {"processor": "a CPU"}
    environment = {"wall_seconds": 90.0, "peak_memory_bytes": 2**30, "machine": machine}
    (log / "environment.json").write_text(json.dumps(environment))
    judge_costs(root)
    note(root, "toy-0", "plain", Verification("2026-11-26", "moved", "seeds", "c" * 40, "b" * 40, "says"))
    said = shown(root)
    assert "mean-is-close  reproduced  (Section 1)" in said
    assert "  holds  error(mean) at share=1 < 3: 0.60 [0.35, 0.85]" in said
    assert "2.5 minutes of stages measured; longest plain-train-mean-s1 (1.5 minutes), peak 1.0 GiB; on a CPU" in said
    assert "state   judged at bbbbbbbbbbbb; not locked:" in said
    assert "Verified: moved 2026-11-26." in said
    assert said.count("not run yet") == 1


def judge_costs(root: Path) -> None:
    from flows.declarations.workspace import Workspace
    from flows.ledger import costs

    costs.write(root, Workspace.load(root).paper("toy-0"), "plain", "small")


def test_on_a_terminal_long_texts_are_wrapped_under_their_heading(root):
    edit(root, "params/toy-0/paper.yaml", "says: The mean is close to the centre.", f"says: {'close ' * 60}")
    lines = [line for line in shown(root, **TERMINAL).splitlines() if "close close" in line]
    assert len(lines) > 2
    assert all(line.startswith("  close") for line in lines)
    assert all(len(line) <= 120 for line in lines)


def test_a_draft_says_how_many_facts_are_missing(root):
    start_paper(root, "toy-new", study="toy")
    assert "9 facts are still to be filled in" in shown(root, "toy-new")


def test_an_unknown_paper_is_recognised(root):
    with pytest.raises(UnknownPaper, match="Did you mean 'toy-0'"):
        shown(root, "toy-00")


def test_every_paper_of_this_repository_can_be_shown():
    from flows.declarations.workspace import Workspace

    for slug in Workspace.load(REPOSITORY).slugs:
        assert "Claims" in shown(REPOSITORY, slug)


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--all"],
        ["show", "one-d-piece"],
        ["validate"],
        ["compare", "one-d-piece", "--at", "k=8", "--out", "FOLDER/a.svg"],
        ["verify", "--all", "--dry-run"],
        ["new", "one-d-piece"],
        ["--help"],
    ],
)
def test_cheap_commands_import_neither_torch_nor_ray_prefect_mlflow_or_dvc(words, tmp_path):
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    source = (
        f"import sys; sys.argv = ['tessera', *{words!r}]\n"
        "from flows.cli import app\n"
        "try:\n    app()\nexcept (SystemExit, Exception):\n    pass\n"
        "print('heavy:', sorted({'torch', 'ray', 'prefect', 'mlflow', 'dvc'} & set(sys.modules)))"
    )
    assert run_in(REPOSITORY, source).strip().endswith("heavy: []")
