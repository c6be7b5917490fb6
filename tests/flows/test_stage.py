"""The stage runner: what a stage function may do, and what is left of it when it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from workspace import make_workspace, write

from components.training.loop import NonFiniteLoss
from flows import stage as runner
from flows.engine.write_guard import WroteOutside, guarded


@pytest.fixture
def root(tmp_path):
    return make_workspace(tmp_path / "workspace", papers=1, arms=2, seeds=3, bases=0)


def run(root: Path, *arguments: str) -> dict:
    return runner.run_request({"root": str(root), "arguments": list(arguments)})


def spec_of(root: Path, *arguments: str):
    return runner.find_stage(root, list(arguments), "small")


TRAIN = ("train", "toy-0", "plain", "mean", "1")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stage_writes_its_output_and_beside_it_what_it_ran_on(root):
    assert run(root, *TRAIN)["status"] == "done"
    spec = spec_of(root, *TRAIN)
    assert content(root / spec.output)
    environment = json.loads((root / spec.log / "environment.json").read_text())
    assert environment["stage"] == spec.name
    assert environment["wall_seconds"] > 0
    assert environment["peak_memory_bytes"] > 1 << 20
    assert environment["machine"]["threads"] == 1
    assert "torch" in environment["packages"]


def test_a_stage_gives_the_same_bytes_first_in_a_process_and_after_others(root):
    run(root, *TRAIN)
    spec = spec_of(root, *TRAIN)
    first = content(root / spec.output)
    for seed in ("0", "2"):
        run(root, *TRAIN[:-1], seed)
        run(root, "evaluate", *TRAIN[1:-1], seed)
    run(root, *TRAIN)
    assert content(root / spec.output) == first


def test_the_command_gives_the_same_bytes_as_the_function(root):
    run(root, *TRAIN)
    spec = spec_of(root, *TRAIN)
    ours = content(root / spec.output)
    source = (
        "import sys; from workspace import register_toy_study; register_toy_study(); "
        f"from flows.stage import main; sys.exit(main({list(TRAIN)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content(root / spec.output) == ours


def test_a_stage_that_writes_nothing_is_refused(root, monkeypatch):
    monkeypatch.setattr("flows.studies.toy.train.train", lambda stage: None)
    result = run(root, *TRAIN)
    assert result["status"] == "failed"
    assert "NothingWritten" in result["message"]
    assert not (root / spec_of(root, *TRAIN).output).exists()


def test_a_stage_that_writes_outside_its_directory_is_stopped_at_that_line(root, monkeypatch):
    def train(stage):
        (stage.output / "fine.txt").write_text("fine")
        (root / "results").mkdir()

    monkeypatch.setattr("flows.studies.toy.train.train", train)
    result = run(root, *TRAIN)
    assert result["status"] == "failed"
    assert "WroteOutside" in result["message"]
    assert "results" in result["message"]
    assert not (root / "results").exists()
    assert not (root / spec_of(root, *TRAIN).output).exists()


def test_a_failed_stage_keeps_the_output_of_the_run_before_and_says_where_its_log_is(root, monkeypatch):
    run(root, *TRAIN)
    spec = spec_of(root, *TRAIN)
    before = content(root / spec.output)

    def train(stage):
        (stage.output / "half.txt").write_text("half")
        print("about to fail")
        raise NonFiniteLoss("NonFiniteLoss: loss is nan at step 7; lower learning_rate")

    monkeypatch.setattr("flows.studies.toy.train.train", train)
    result = run(root, *TRAIN)
    assert result["message"].startswith("NonFiniteLoss: loss is nan at step 7")
    assert result["log"] == spec.log
    assert content(root / spec.output) == before
    tail = runner.log_tail(root, spec.log)
    assert "about to fail" in tail
    assert "step 7" in tail
    assert not list((root / spec.output).parent.glob("*.writing"))


def test_a_log_that_lacks_the_reason_gets_it_and_one_that_has_it_is_left_alone(tmp_path):
    path = tmp_path / "runs" / "log" / "log.txt"
    path.parent.mkdir(parents=True)
    path.write_text("training\n")
    reason = "Traceback\nOSError: no space"
    for _ in range(2):
        assert runner.leave_log(tmp_path, "runs/log", reason) == ("runs/log/log.txt", f"training\n{reason}")
    assert path.read_text() == f"training\n{reason}\n"


def test_a_log_whose_folder_takes_nothing_is_written_among_the_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "runs" / "log" / "log.txt").mkdir(parents=True)
    path, tail = runner.leave_log(tmp_path, "runs/log", "OSError: no space")
    assert Path(path).read_text() == "OSError: no space\n"
    assert tail == "OSError: no space"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert runner.leave_log(tmp_path, "runs/log", "OSError: no space") == ("", "OSError: no space")


def test_a_checkpoint_is_offered_again_until_the_stage_is_done_and_dropped_when_parameters_change(root, monkeypatch):
    seen = []

    def train(stage):
        seen.append((stage.checkpoint / "step").exists())
        (stage.checkpoint / "step").write_text("3")
        if len(seen) < 3:
            raise RuntimeError("killed")
        (stage.output / "model.txt").write_text("done")

    monkeypatch.setattr("flows.studies.toy.train.train", train)
    run(root, *TRAIN)
    run(root, *TRAIN)
    declared = root / "params" / "toy-0" / "paper.yaml"
    declared.write_text(declared.read_text().replace("small: {minutes: 1", "small: {steps: 77, minutes: 1"))
    run(root, *TRAIN)
    assert seen == [False, True, False]
    assert not list((root / spec_of(root, *TRAIN).output).parent.glob("*checkpoint*"))


def test_a_stage_killed_in_the_middle_leaves_no_output_and_the_next_run_gives_the_undisturbed_bytes(root):
    run(root, *TRAIN)
    spec = spec_of(root, *TRAIN)
    undisturbed = content(root / spec.output)
    for path in (root / spec.output).iterdir():
        path.unlink()
    (root / spec.output).rmdir()
    source = (
        "import os, signal; from workspace import register_toy_study; register_toy_study(); "
        "import components.training.atomic as atomic, flows.stage as stage; "
        "stage.replace_directory = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        f"stage.main({list(TRAIN)!r})"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (root / spec.output).exists()
    assert list((root / spec.output).parent.glob("*.writing"))
    run(root, *TRAIN)
    assert content(root / spec.output) == undisturbed
    assert not list((root / spec.output).parent.glob("*.writing"))


def test_an_unknown_stage_is_refused_with_where_to_look(root):
    result = run(root, "train", "toy-0", "plain", "mean", "9")
    assert result["exit_code"] == 2
    assert "tessera show toy-0" in result["message"]


def test_a_wrong_command_line_prints_how_it_is_used(capsys):
    assert runner.main(["train", "toy-0"]) == 2
    assert "usage: python -m flows.stage" in capsys.readouterr().err


def test_a_full_disk_fails_the_stage_with_the_reason_and_leaves_nothing_half_written(root, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    spec = spec_of(root, *TRAIN)
    source = f"""
import errno, os
from workspace import register_toy_study
register_toy_study()
import flows.studies.toy.train as toy
def train(stage):
    limit = 1 << 20
    with open(stage.output / "big.bin", "wb") as file:
        for _ in range(64):
            file.write(bytes(limit))
            file.flush()
toy.train = train
from flows.stage import main
raise SystemExit(main({list(TRAIN)!r}))
"""
    # A 4 MB file system mounted in a namespace of its own, where the stage's output lies.
    target = (root / spec.output).parent
    target.mkdir(parents=True)
    shell = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c"]
    mount = (
        "import subprocess, sys; "
        f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', {str(target)!r}], check=True); "
        f"done = subprocess.run([sys.executable, '-c', {source!r}], capture_output=True, text=True); "
        f"import os; print(done.stderr, os.listdir({str(target)!r})); sys.exit(done.returncode)"
    )
    done = subprocess.run([*shell, mount], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stdout
    assert "run'" not in done.stdout.replace("run-checkpoint", "")


def test_a_read_only_workspace_is_refused_with_the_reason(tmp_path):
    root = make_workspace(tmp_path / "workspace", papers=1, bases=0)
    write(root, "dvc.yaml", "stages: {}\n")
    source = "from flows.cli import main; import sys; sys.argv = ['tessera', 'reproduce', 'toy-0']; main()"
    inner = (
        "import subprocess, sys; "
        f"subprocess.run(['mount', '--bind', {str(root)!r}, {str(root)!r}], check=True); "
        f"subprocess.run(['mount', '-o', 'remount,ro,bind', {str(root)!r}], check=True); "
        "prelude = 'from workspace import register_toy_study; register_toy_study(); '; "
        f"done = subprocess.run([sys.executable, '-c', prelude + {source!r}], cwd={str(root)!r}); "
        "sys.exit(done.returncode)"
    )
    shell = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", inner]
    done = subprocess.run(shell, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "WorkspaceReadOnly" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_guard_lets_a_stage_read_anywhere_and_write_outside_the_workspace(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "input.txt").write_text("input")
    with guarded(inside, [inside / "own"], "stage"):
        assert (inside / "input.txt").read_text() == "input"
        (inside / "own").mkdir()
        (inside / "own" / "result.txt").write_text("result")
        (outside / "cache.txt").write_text("cache")
        for change in (
            lambda: (inside / "other.txt").write_text("x"),
            lambda: (inside / "input.txt").unlink(),
            lambda: os.rename(inside / "input.txt", inside / "renamed.txt"),
            lambda: os.symlink(outside, inside / "link"),
            lambda: os.open(inside / "other.txt", os.O_WRONLY | os.O_CREAT),
        ):
            with pytest.raises(WroteOutside):
                change()
    (inside / "input.txt").write_text("the guard is off again")


def test_a_damaged_table_ends_a_stage_with_words_and_not_its_worker(root, monkeypatch):
    for arm in ("mean", "median"):
        for seed in ("0", "1", "2"):
            assert run(root, "train", "toy-0", "plain", arm, seed)["status"] == "done"
            assert run(root, "evaluate", "toy-0", "plain", arm, seed)["status"] == "done"
    table = root / spec_of(root, "evaluate", *TRAIN[1:]).output / "metrics.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    answer = run(root, "judge", "toy-0", "plain")
    assert answer["status"] == "failed"
    assert "damaged" in answer["message"]
    assert "dvc checkout" in answer["message"]

    def panics(*context: object) -> None:
        raise pl.exceptions.PanicException("assertion failed: start + length <= self.bytes.len()")

    monkeypatch.setattr(runner, "_function", lambda *context: panics)
    assert "damaged" in run(root, *TRAIN)["message"]

    def stops(*context: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_function", lambda *context: stops)
    with pytest.raises(KeyboardInterrupt):
        run(root, *TRAIN)
