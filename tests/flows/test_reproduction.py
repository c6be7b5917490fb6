"""A paper end to end through every door: the command line, plain DVC, MLflow, and the doors that must stay shut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
from workspace import command, commit, edit, make_workspace, write


def tessera(root: Path, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        return command(root, sys.executable, "-m", "flows.cli", *words, check=check)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace in which the base is trained and one toy paper is reproduced and committed."""
    root = make_workspace(tmp_path_factory.mktemp("made") / "workspace", papers=1, code=True, dvc=True)
    write(root, "pyproject.toml", "[project]\nname = 'toy'\nversion = '0'\n")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n__pycache__/\n*.db\n*.db-*\n")
    tessera(root, "sync")
    tessera(root, "rebuild-base", "constant-0")
    commit(root, "base")
    said = tessera(root, "reproduce", "toy-0").stdout
    commit(root, "results")
    return root, said


@pytest.fixture
def clone(made, tmp_path):
    """A copy of that workspace, runs and cache included, that a test may change."""
    root = tmp_path / "clone"
    shutil.copytree(made[0], root, symlinks=True)
    return root


def test_a_run_ends_with_verdicts_and_the_places_to_look_at(made):
    root, said = made
    assert "mean-is-close" in said
    assert "reproduced" in said
    assert "site/index.html" in said
    assert "mlflow ui" in said
    verdicts = json.loads((root / "results" / "toy-0" / "plain" / "verdicts.json").read_text())
    assert [claim["verdict"] for claim in verdicts["claims"]] == ["reproduced", "out of scale"]
    assert verdicts["git_commit"]
    assert (root / "results" / "toy-0" / "history.jsonl").read_text().count("\n") == 1


def test_the_hashes_in_the_verdicts_are_those_of_the_lock(made):
    root, _ = made
    import yaml

    lock = yaml.safe_load((root / "params" / "toy-0" / "dvc.lock").read_text())["stages"]
    verdicts = json.loads((root / "results" / "toy-0" / "plain" / "verdicts.json").read_text())
    assert verdicts["stages"]
    for name, digest in verdicts["stages"].items():
        assert lock[name]["outs"][0]["md5"] == digest


def test_after_a_run_dvc_finds_nothing_to_do_but_the_code_stage(made):
    root, _ = made
    status = command(root, sys.executable, "-m", "dvc", "status").stdout
    assert [line for line in status.splitlines() if line and not line.startswith("\t")] == ["code:"]


def test_mlflow_holds_a_parent_and_a_child_for_every_arm_and_seed(made):
    root, _ = made
    with sqlite3.connect(root / "mlflow.db") as database:
        tags = database.execute("select run_uuid, key, value from tags").fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run, key, value in tags:
        runs.setdefault(run, {})[key] = value
    children = [of_run for of_run in runs.values() if "arm" in of_run]
    assert {(child["arm"], child["seed"]) for child in children} == {
        (arm, str(seed)) for arm in ("mean", "median") for seed in range(3)
    }
    assert len(runs) == len(children) + 1
    assert {child["mlflow.parentRunId"] for child in children} <= set(runs)


def test_when_nothing_is_stale_neither_ray_nor_prefect_nor_mlflow_nor_torch_is_imported(made):
    root, _ = made
    source = (
        "import sys; sys.argv = ['tessera', 'reproduce', 'toy-0']\n"
        "from flows.cli import app\n"
        "app(standalone_mode=False)\n"
        "print(sorted({'ray', 'prefect', 'mlflow', 'torch'} & set(sys.modules)))"
    )
    for _ in range(2):  # the second time from memory
        done = command(root, sys.executable, "-c", source)
        assert "up to date" in done.stdout
        assert done.stdout.strip().endswith("[]")


def test_plain_dvc_repro_gives_the_results_of_the_flow(made, clone):
    for folder in ("runs", "results", ".dvc/cache"):
        shutil.rmtree(clone / folder)
    command(clone, sys.executable, "-m", "dvc", "repro", "params/toy-0/dvc.yaml")
    ours = made[0] / "results" / "toy-0" / "plain"
    theirs = clone / "results" / "toy-0" / "plain"
    assert (ours / "metrics.parquet").read_bytes() == (theirs / "metrics.parquet").read_bytes()
    assert "up to date" in tessera(clone, "reproduce", "toy-0").stdout


def test_a_tracking_server_that_is_dead_costs_no_stage_and_its_records_arrive_later(clone):
    said = tessera(clone, "reproduce", "toy-0", "--force", MLFLOW_TRACKING_URI="http://127.0.0.1:9").stdout
    assert "records" in said
    waiting = list((clone / ".tessera" / "spool").rglob("*.json"))
    assert waiting

    def recorded() -> int:
        with sqlite3.connect(clone / "mlflow.db") as database:
            return database.execute("select count(*) from runs").fetchone()[0]

    before = recorded()
    # The next run sends them, also one that finds nothing to do.
    tessera(clone, "reproduce", "toy-0")
    assert recorded() == before + 7
    assert list((clone / ".tessera" / "spool").rglob("*.json")) == []
    tessera(clone, "reproduce", "toy-0", "--force")
    assert recorded() == before + 2 * 7


def test_a_failing_stage_is_named_with_its_log_and_the_rest_is_kept(clone):
    edit(clone, "flows/studies/toy/rules/median.py", "def estimate(", "def missing(")
    done = tessera(clone, "reproduce", "toy-0", check=False)
    assert done.returncode == 1
    assert "plain-evaluate-median-s0" in done.stdout
    assert "log: runs/toy-0/plain/evaluate/median/s0/log/log.txt" in done.stdout
    assert "retry: tessera reproduce toy-0" in done.stdout
    assert "were skipped" in done.stdout
    assert "estimate" in tessera(clone, "logs", "toy-0:plain-evaluate-median-s0").stdout
    edit(clone, "flows/studies/toy/rules/median.py", "def missing(", "def estimate(")
    assert "up to date" in tessera(clone, "reproduce", "toy-0").stdout


def test_an_exploration_is_tracked_apart_and_leaves_dvc_and_results_alone(clone):
    before = (clone / "results" / "toy-0" / "plain" / "verdicts.json").read_bytes()
    said = tessera(clone, "try", "toy-0", "--set", "arms.median.steps=5").stdout
    assert "median" in said
    assert (clone / "results" / "toy-0" / "plain" / "verdicts.json").read_bytes() == before
    with sqlite3.connect(clone / "mlflow.db") as database:
        names = {name for (name,) in database.execute("select name from experiments")}
    assert "toy/exploratory" in names
    assert "up to date" in tessera(clone, "reproduce", "toy-0").stdout
    wrong = tessera(clone, "try", "toy-0", "--set", "arms.median.stepps=5", check=False)
    assert wrong.returncode == 2
    assert "steps" in wrong.stderr
    undeclared = tessera(clone, "try", "toy-0", "--arm", "median", "--seeds", "99", check=False)
    assert undeclared.returncode == 2
    assert "has no seed 99" in undeclared.stderr


def test_a_neutral_edit_is_rekeyed_and_a_changed_number_is_not(clone):
    edit(clone, "flows/studies/toy/rules/mean.py", "return ", "centre = ")
    with open(clone / "flows/studies/toy/rules/mean.py", "a") as module:
        module.write("    return centre\n")
    assert "rules/mean.py:6: estimate changed" in tessera(clone, "why", "toy-0:plain-evaluate-mean-s0").stdout
    said = tessera(clone, "rekey", "toy-0").stdout
    assert "same numbers" in said
    assert "up to date" in tessera(clone, "reproduce", "toy-0").stdout
    assert json.loads((clone / "params/toy-0/rekeyed.jsonl").read_text().splitlines()[-1])["arm"] == "mean"
    commit(clone, "rekeyed")
    edit(clone, "flows/studies/toy/rules/mean.py", "return centre", "return centre + 0.001")
    refused = tessera(clone, "rekey", "toy-0", check=False)
    assert refused.returncode == 1
    assert "other numbers" in refused.stderr


def test_the_smoke_profile_runs_every_arm_on_stand_ins_and_keeps_nothing(clone):
    before = sorted((clone / "results").rglob("*"))
    assert "the wiring holds" in tessera(clone, "reproduce", "toy-0", "--profile", "smoke").stdout
    assert sorted((clone / "results").rglob("*")) == before


def test_seeds_can_be_chosen_and_then_nothing_is_judged(clone):
    shutil.rmtree(clone / "runs")
    shutil.rmtree(clone / ".dvc" / "cache")
    tessera(clone, "reproduce", "toy-0", "--seeds", "1")
    assert (clone / "runs/toy-0/plain/evaluate/mean/s1/run/metrics.parquet").is_file()
    assert not (clone / "runs/toy-0/plain/evaluate/mean/s0/run").exists()


def test_results_hold_one_row_per_arm_seed_and_condition(made):
    metrics = pl.read_parquet(made[0] / "results" / "toy-0" / "plain" / "metrics.parquet")
    assert metrics.height == metrics.select("arm", "seed", "metric", "at").n_unique() == 2 * 3 * 2 * 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_ended_in_the_middle_is_continued_and_gives_the_undisturbed_metrics(made, clone, number):
    shutil.rmtree(clone / "runs")
    shutil.rmtree(clone / "results")
    shutil.rmtree(clone / ".dvc" / "cache")
    edit(clone, "params/toy-0/paper.yaml", "small: {minutes: 1", "small: {pause: 2.0, minutes: 1")
    environment = os.environ | {"PYTHONPATH": str(clone)}
    words = [sys.executable, "-m", "flows.cli", "reproduce", "toy-0"]
    driver = subprocess.Popen(words, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lock = clone / "params" / "toy-0" / "dvc.lock"
    before = lock.read_bytes()
    deadline = time.monotonic() + 90
    while lock.read_bytes() == before:
        assert time.monotonic() < deadline, "no stage was committed"
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    driver.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "a process outlived the driver"
        time.sleep(0.1)
    said = tessera(clone, "reproduce", "toy-0").stdout
    assert "up to date" in said.splitlines()[0]
    ours = made[0] / "results" / "toy-0" / "plain" / "metrics.parquet"
    assert (clone / "results" / "toy-0" / "plain" / "metrics.parquet").read_bytes() == ours.read_bytes()
