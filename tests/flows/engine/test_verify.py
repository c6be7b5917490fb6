"""Verification on small git and DVC checkouts; the rerun is a stand-in that writes what a judge would write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from workspace import command, commit, make_workspace, write

from flows.engine.verify import MACHINE_CLASS, NothingToVerify, RerunFailed, WorkspaceFailed, run_in, verify
from flows.ledger.hashes import directory_md5

MACHINE = dict.fromkeys(MACHINE_CLASS, "one") | {"instruction_set": "AVX2", "processor": "any"}
OTHER_MACHINE = MACHINE | {"instruction_set": "AVX512"}
VALUES = {0: 30.0, 1: 30.2, 2: 29.9}

PAPER = """
slug: p
title: A paper
family: image
study: image-tokenizer
story: Says something.
seeds: [0, 1, 2]
variants:
  tiny: {canonical: true, data: [tiny]}
  demo: {demo: true, data: []}
arms:
  vq: {says: the method}
profiles:
  small: {minutes: 1}
claims:
  - id: c
    says: It is good.
    cites: Table 1
    scope: full-only
    needs: A cluster
deviations: []
history: []
"""


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def write_results(root, values=VALUES, machine=MACHINE, stages=None, variant="tiny"):
    folder = root / "results" / "p" / variant
    folder.mkdir(parents=True)
    rows = [{"arm": "vq", "seed": seed, "metric": "psnr", "at": "", "value": value} for seed, value in values.items()]
    pl.DataFrame(rows).write_parquet(folder / "metrics.parquet")
    record = {"machine": machine, "stages": stages or {"tiny-train-vq-s0": "a.dir"}}
    (folder / "verdicts.json").write_text(json.dumps(record))


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    (root / "params" / "p").mkdir(parents=True)
    (root / "params" / "p" / "paper.yaml").write_text(PAPER)
    (root / ".gitignore").write_text("/data/\n")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    remote = lab\n['remote \"lab\"']\n    url = /nowhere\n")
    (root / "data" / "tiny").mkdir(parents=True)
    (root / "data" / "tiny" / "a.parquet").write_text("rows")
    (root / "dvc.yaml").write_text("stages:\n  data-tiny:\n    cmd: make it\n    outs: [data/tiny]\n")
    digest = directory_md5(root / "data" / "tiny")
    lock = {"cmd": "make it", "outs": [{"path": "data/tiny", "hash": "md5", "md5": digest, "size": 4, "nfiles": 1}]}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"data-tiny": lock}}))
    write_results(root)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_an_equal_rerun_on_the_same_machine_class_is_confirmed_bit_for_bit(checkout):
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root))
    assert report.passed
    assert (report.level, report.variant, report.comparison.compared) == ("bit-exact", "tiny", 1)
    assert report.copied_data == ("tiny",)
    assert "p / tiny" in report.lines()[0]
    assert "confirmed" in report.lines()[0]


def test_another_last_bit_on_the_same_machine_class_is_not_confirmed(checkout):
    changed = VALUES | {1: 30.200000000000003}
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root, changed))
    assert not report.passed
    assert any("psnr of vq" in line and "30.200000000000003" in line for line in report.lines())


def test_another_output_hash_on_the_same_machine_class_is_not_confirmed(checkout):
    stages = {"tiny-train-vq-s0": "b.dir"}
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root, stages=stages))
    assert not report.passed
    assert report.different_stages == ("tiny-train-vq-s0",)


def test_another_machine_class_is_judged_by_the_seeds(checkout):
    near = {0: 30.1, 1: 30.0, 2: 30.05}

    def rerun(root, slug, variant):
        write_results(root, near, OTHER_MACHINE, {"tiny-train-vq-s0": "b.dir"})

    report = verify(checkout, "p", run=rerun)
    assert report.passed
    assert report.level == "seeds"
    assert any("instruction_set was 'AVX2', is 'AVX512'" in line for line in report.lines())
    far = {seed: value + 10 for seed, value in VALUES.items()}
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root, far, OTHER_MACHINE))
    assert not report.passed
    assert any("psnr of vq: not explained by the seeds" in line for line in report.lines())


@pytest.mark.parametrize("machine", [None, {}, MACHINE | {"threads": "1 / 2"}])
def test_results_without_one_recorded_machine_class_are_judged_by_the_seeds(checkout, machine):
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root, machine=machine))
    assert (report.level, report.passed) == ("seeds", True)
    assert any("no single known machine class" in line for line in report.lines())


def test_a_processor_of_another_name_is_no_other_machine_class(checkout):
    machine = MACHINE | {"processor": "another", "cores": 64}
    report = verify(checkout, "p", run=lambda root, slug, variant: write_results(root, machine=machine))
    assert report.level == "bit-exact"


def test_the_machine_class_has_the_keys_that_stages_record():
    from components.training.determinism import machine_class

    assert set(MACHINE_CLASS) == machine_class().keys()


def test_the_rerun_sees_the_commit_and_not_the_changes_around_it(checkout):
    (checkout / "params" / "p" / "paper.yaml").write_text("changed")
    (checkout / "scratch.py").write_text("untracked")
    seen = {}

    def rerun(root, slug, variant):
        seen["paper"] = (root / "params" / "p" / "paper.yaml").read_text()
        seen["files"] = sorted(path.name for path in root.iterdir())
        seen["results"] = (root / "results" / "p" / "tiny").exists()
        seen["config"] = (root / ".dvc" / "config").read_text()
        write_results(root)

    report = verify(checkout, "p", run=rerun)
    assert seen["paper"] == PAPER
    assert "scratch.py" not in seen["files"]
    assert not seen["results"]
    assert "lab" not in seen["config"]
    assert report.uncommitted
    assert any("not committed" in line for line in report.lines())


def test_the_checkout_is_left_as_it_was(checkout):
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*") if path.is_file()}
    verify(checkout, "p", run=lambda root, slug, variant: write_results(root))
    after = {path: path.stat().st_mtime_ns for path in checkout.rglob("*") if path.is_file()}
    assert before == after


def test_data_that_is_not_what_the_lock_says_is_made_anew(checkout):
    (checkout / "data" / "tiny" / "a.parquet").write_text("rotten")
    seen = []

    def rerun(root, slug, variant):
        seen.append((root / "data" / "tiny").exists())
        write_results(root)

    report = verify(checkout, "p", run=rerun)
    assert seen == [False]
    assert report.copied_data == ()


def test_copied_data_count_as_up_to_date_in_the_clean_workspace(checkout):
    from flows.engine.graph import DvcGraph

    stale = []

    def rerun(root, slug, variant):
        graph = DvcGraph(root)
        stale.append(graph.stale("data-tiny"))
        graph.close()
        write_results(root)

    verify(checkout, "p", run=rerun)
    assert stale == [False]


def test_a_rerun_cannot_change_the_data_of_the_checkout(checkout):
    def rerun(root, slug, variant):
        copied = root / "data" / "tiny" / "a.parquet"
        assert copied.read_text() == "rows"
        assert copied.stat().st_mode & 0o222 == 0
        copied.chmod(0o644)
        copied.write_text("overwritten")
        write_results(root)

    verify(checkout, "p", run=rerun)
    assert (checkout / "data" / "tiny" / "a.parquet").read_text() == "rows"


def test_nothing_can_be_restored_from_a_cache_that_the_user_shares(checkout, monkeypatch, tmp_path):
    shared = tmp_path / "config" / "dvc"
    shared.mkdir(parents=True)
    (shared / "config").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(shared))
    found = []

    def rerun(root, slug, variant):
        from dvc.repo import Repo

        repo = Repo(str(root))
        found.append(Path(repo.cache.local.path))
        repo.close()
        write_results(root)

    verify(checkout, "p", run=rerun)
    assert "tessera-verify-" in str(found[0])


def test_a_variant_without_results_or_an_unknown_one_is_refused(checkout):
    with pytest.raises(NothingToVerify, match="has no results/p/demo"):
        verify(checkout, "p", "demo", run=lambda *_: None)
    with pytest.raises(NothingToVerify, match="Did you mean 'tiny'"):
        verify(checkout, "p", "tinny", run=lambda *_: None)


def test_a_rerun_that_writes_nothing_is_an_error(checkout):
    with pytest.raises(RerunFailed, match="without writing its results"):
        verify(checkout, "p", run=lambda *_: None)


def test_a_folder_outside_git_is_refused_in_words(tmp_path):
    with pytest.raises(WorkspaceFailed, match="needs a git checkout"):
        verify(tmp_path, "p", run=lambda *_: None)


def test_the_rerun_process_takes_its_code_from_the_workspace(tmp_path, monkeypatch):
    package = tmp_path / "flows"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(
        "import os, pathlib; pathlib.Path('seen').write_text(os.environ.get('MLFLOW_TRACKING_URI', 'none'))"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run_in(tmp_path, ["-m", "flows.cli"])
    assert (tmp_path / "seen").read_text() == "none"


def test_a_rerun_process_that_fails_shows_the_end_of_its_output(tmp_path):
    with pytest.raises(RerunFailed, match=r"exit code 1(.|\n)*ValueError: it broke"):
        run_in(tmp_path, ["-c", "raise ValueError('it broke')"])


@pytest.mark.slow
def test_a_real_paper_is_confirmed_bit_for_bit_and_a_forged_number_is_not(tmp_path):
    root = make_workspace(tmp_path / "workspace", papers=1, bases=0, code=True, dvc=True)
    write(root, "pyproject.toml", "")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n*.db\n__pycache__/\n")
    command(root, sys.executable, "-m", "flows.cli", "reproduce", "toy-0")
    commit(root, "results")
    said = command(root, sys.executable, "-m", "flows.cli", "verify", "toy-0").stdout
    assert "confirmed (12 metrics, bit for bit" in said
    table = root / "results" / "toy-0" / "plain" / "metrics.parquet"
    frame = pl.read_parquet(table)
    frame.with_columns(pl.col("value") + pl.when(pl.col("metric") == "error").then(1e-9).otherwise(0)).write_parquet(
        table
    )
    commit(root, "forged")
    ended = command(root, sys.executable, "-m", "flows.cli", "verify", "toy-0", check=False)
    assert ended.returncode == 1
    assert "NOT confirmed" in ended.stdout
    assert "error of mean at share=1" in ended.stdout
