"""The executor against DVC itself, on small graphs whose right answer is plain."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy_dag
import yaml

from flows.engine import graph as graph_module
from flows.engine.dispatch import Call
from flows.engine.execution import Execution, Observer, State
from flows.engine.graph import DvcGraph, GraphError

DIAMOND = {"root": [], "left": ["root"], "right": ["root"], "end": ["left", "right"]}


def execute(root: Path, targets=None, **options):
    graph = DvcGraph(root)
    dispatch = toy_dag.ThreadDispatch()
    execution = Execution(
        graph,
        dispatch,
        lambda node: Call(toy_dag.FUNCTION, {"root": str(root), "command": node.command}),
        **options,
    )
    with graph.locked():
        outcomes = execution.run(targets or graph.nodes)
    graph.close()
    return {address: outcome.state for address, outcome in outcomes.items()}, dispatch, outcomes


def dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_input(root: Path, name: str, text: str) -> None:
    (root / "in" / f"{name}.txt").write_text(text)


def test_a_run_leaves_the_lock_and_outputs_that_dvc_repro_leaves(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for root in (ours, theirs):
        root.mkdir()
        toy_dag.make(root, DIAMOND)
    states, _, _ = execute(ours)
    dvc(theirs, "repro", "-q")
    assert set(states.values()) == {State.DONE}
    assert yaml.safe_load((ours / "dvc.lock").read_text()) == yaml.safe_load((theirs / "dvc.lock").read_text())
    from dvc.utils.serialize import dumps_yaml, load_yaml

    assert (ours / "dvc.lock").read_text() == dumps_yaml(load_yaml(ours / "dvc.lock"))
    assert (ours / "out" / "end").read_text() == (theirs / "out" / "end").read_text() == "5"
    assert "up to date" in dvc(ours, "status")


def test_after_dvc_repro_the_executor_finds_nothing_to_do_and_starts_no_workers(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    dvc(tmp_path, "repro", "-q")
    states, dispatch, _ = execute(tmp_path)
    assert set(states.values()) == {State.CLEAN}
    assert not dispatch.started


def test_only_what_a_change_reaches_runs_again(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    write_input(tmp_path, "left", "10")
    states, _, _ = execute(tmp_path)
    assert states == {"root": State.CLEAN, "right": State.CLEAN, "left": State.DONE, "end": State.DONE}
    assert (tmp_path / "out" / "end").read_text() == "14"


def test_stages_below_an_output_that_came_out_the_same_are_left_alone(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    write_input(tmp_path, "root", "0 1")  # other bytes, same sum
    states, _, _ = execute(tmp_path)
    assert states == {"root": State.DONE, "left": State.CLEAN, "right": State.CLEAN, "end": State.CLEAN}


def test_a_run_made_before_comes_back_from_the_run_cache(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    write_input(tmp_path, "left", "10")
    execute(tmp_path)
    write_input(tmp_path, "left", "1")
    states, _, _ = execute(tmp_path)
    assert states["left"] is State.CACHED
    assert toy_dag.runs(tmp_path, "left") == 2
    assert (tmp_path / "out" / "end").read_text() == "5"


def test_a_failure_skips_what_depends_on_it_and_nothing_else(tmp_path):
    toy_dag.make(tmp_path, DIAMOND, {"left": "fail"})
    states, _, outcomes = execute(tmp_path)
    assert states == {"root": State.DONE, "right": State.DONE, "left": State.FAILED, "end": State.SKIPPED}
    assert "left was told to fail" in outcomes["left"].message
    assert "left" in outcomes["end"].message
    write_input(tmp_path, "left", "1")
    states, _, _ = execute(tmp_path)
    assert states["right"] is State.CLEAN
    assert states["end"] is State.DONE


def test_a_stage_that_writes_nothing_fails_with_its_name_and_output(tmp_path):
    toy_dag.make(tmp_path, {"root": []}, {"root": "silent"})
    states, _, outcomes = execute(tmp_path)
    assert states["root"] is State.FAILED
    assert "out/root" in outcomes["root"].message
    assert not (tmp_path / "dvc.lock").exists()


def test_an_output_deleted_by_hand_comes_back(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    (tmp_path / "out" / "left").unlink()
    states, _, _ = execute(tmp_path)
    assert states["left"] in (State.CACHED, State.DONE)
    assert (tmp_path / "out" / "left").read_text() == "2"


def test_forced_stages_run_although_nothing_changed(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    states, _, _ = execute(tmp_path, force=frozenset({"left"}))
    assert states["left"] is State.DONE
    assert toy_dag.runs(tmp_path, "left") == 2
    assert states["end"] is State.CLEAN


def test_targets_bring_what_is_above_them_and_nothing_beside_them(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    states, _, _ = execute(tmp_path, targets=["left"])
    assert set(states) == {"root", "left"}


def test_an_unknown_target_is_refused_with_the_nearest_name(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    with pytest.raises(GraphError, match="Did you mean 'left'"):
        execute(tmp_path, targets=["lefft"])


def test_a_cycle_is_refused_by_name(tmp_path):
    toy_dag.make(tmp_path, {"a": ["b"], "b": ["a"]})
    with pytest.raises(GraphError, match=r"(?i)cycl"):
        DvcGraph(tmp_path)


def test_a_broken_dvc_yaml_is_refused_with_its_path(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    (tmp_path / "dvc.yaml").write_text("stages:\n  root: [\n")
    with pytest.raises(GraphError, match=r"dvc\.yaml"):
        DvcGraph(tmp_path)


@pytest.mark.parametrize("fails_at", range(4))
def test_a_full_disk_while_a_lock_is_written_loses_nothing_and_the_next_run_goes_on(tmp_path, monkeypatch, fails_at):
    toy_dag.make(tmp_path, DIAMOND)
    count = iter(range(100))
    write = graph_module.write_bytes

    def full(path: Path, content: bytes) -> None:
        if next(count) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(graph_module, "write_bytes", full)
    states, _, outcomes = execute(tmp_path)
    failed = [address for address, state in states.items() if state is State.FAILED]
    assert len(failed) == 1
    assert "No space left" in outcomes[failed[0]].message
    assert (tmp_path / "out" / failed[0]).exists()
    monkeypatch.undo()
    execute(tmp_path)
    assert (tmp_path / "out" / "end").read_text() == "5"
    assert "up to date" in dvc(tmp_path, "status")


def test_a_frozen_stage_never_runs_and_says_what_to_do_when_its_output_is_missing(tmp_path):
    toy_dag.make(tmp_path, {"root": [], "below": ["root"]})
    declared = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    declared["stages"]["root"]["frozen"] = True
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(declared))
    states, _, outcomes = execute(tmp_path)
    assert states == {"root": State.FAILED, "below": State.SKIPPED}
    assert "rebuild-base" in outcomes["root"].message


def test_what_is_above_a_frozen_stage_is_left_alone_until_it_is_thawed(tmp_path):
    toy_dag.make(tmp_path, {"data": [], "base": ["data"], "below": ["base"]})
    execute(tmp_path)
    declared = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    declared["stages"]["base"]["frozen"] = True
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(declared))
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    (tmp_path / "out" / "data").unlink()
    states, _, _ = execute(tmp_path, targets=["below"])
    assert set(states) == {"base", "below"}
    thawed = DvcGraph(tmp_path, thawed=frozenset({"base"}))
    assert thawed.select(["base"]) == ["data", "base"]
    assert not thawed.nodes["base"].frozen


def test_stopping_ends_the_run_and_the_next_one_finishes_it(tmp_path):
    toy_dag.make(tmp_path, DIAMOND, {"root": "1 sleep=0.3"})

    class StopAfterFirst(Observer):
        def ended(self, outcome):
            execution.stop()

    graph = DvcGraph(tmp_path)
    execution = Execution(
        graph,
        toy_dag.ThreadDispatch(),
        lambda node: Call(toy_dag.FUNCTION, {"root": str(tmp_path), "command": node.command}),
        observers=(StopAfterFirst(),),
    )
    with graph.locked():
        outcomes = execution.run(graph.nodes)
    assert outcomes["root"].state is State.DONE
    assert outcomes["end"].state is State.STOPPED
    states, _, _ = execute(tmp_path)
    assert states["root"] is State.CLEAN
    assert (tmp_path / "out" / "end").read_text() == "5"


def test_while_the_executor_runs_dvc_repro_is_refused(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    graph = DvcGraph(tmp_path)
    with graph.locked():
        other = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=tmp_path, capture_output=True, text=True)
    assert other.returncode != 0
    assert "lock" in other.stderr.lower()


def test_more_ready_stages_run_in_order_of_priority(tmp_path):
    toy_dag.make(tmp_path, {name: [] for name in "abcd"})
    started = []

    class Record(Observer):
        def started(self, address):
            started.append(address)

    execute(tmp_path, jobs=1, priority=lambda node: ord(node.address), observers=(Record(),))
    assert started == ["d", "c", "b", "a"]


def test_a_workspace_without_git_is_run_and_recorded(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    shutil.rmtree(tmp_path / ".git")
    states, _, _ = execute(tmp_path)
    assert set(states.values()) == {State.DONE}
    states, _, _ = execute(tmp_path)
    assert set(states.values()) == {State.CLEAN}


def test_stages_that_want_a_node_for_themselves_come_last_and_do_not_keep_others_from_running(tmp_path):
    above = {"a": [], "b": [], "c": [], "late": ["c"], "x": [], "y": [], "z": []}
    inputs = {name: "1 sleep=0.4" for name in ("a", "b", "c")}
    toy_dag.make(tmp_path, above, inputs, meta={name: {"exclusive": True} for name in "xyz"})
    started = []

    class Record(Observer):
        def started(self, address):
            started.append(address)

    execute(tmp_path, priority=lambda node: ord(node.address[0]), observers=(Record(),))
    assert set(started[:3]) == {"a", "b", "c"}
    # One of them may wait in the queue while others run, no two.
    assert started.index("late") < started.index("y") < started.index("x")


def test_a_folder_of_the_run_cache_that_a_kill_left_empty_stands_for_no_run(tmp_path):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    for entry in (tmp_path / ".dvc" / "cache" / "runs").glob("*/*/*"):
        entry.unlink()
    (tmp_path / "dvc.lock").unlink()
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    states, _, _ = execute(tmp_path)
    assert set(states.values()) == {State.DONE}


@pytest.mark.parametrize("content", ["cmd: 'ech", "cmd: echo\n", "cmd: echo\nouts: []\n", ""])
def test_a_run_that_a_full_disk_kept_from_being_written_whole_stands_for_no_run(tmp_path, content):
    toy_dag.make(tmp_path, DIAMOND)
    execute(tmp_path)
    for entry in list((tmp_path / ".dvc" / "cache" / "runs").glob("*/*/*")):
        (entry.parent / "aXfO4tmp").write_text(content)  # DVC's temporary name, and the newest file of its folder
        entry.unlink()
    (tmp_path / "dvc.lock").unlink()
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    states, _, _ = execute(tmp_path)
    assert set(states.values()) == {State.DONE}
    assert not list((tmp_path / ".dvc" / "cache" / "runs").glob("*/*/aXfO4tmp"))


def test_a_stage_whose_output_the_cache_did_not_take_is_not_recorded(tmp_path, monkeypatch):
    toy_dag.make(tmp_path, {"root": []})
    objects = str(tmp_path / ".dvc" / "cache" / "files")

    def full(name):
        move = getattr(os, name)

        def moving(source, target, *words, **options):
            if str(target).startswith(objects):
                raise OSError(errno.ENOSPC, "No space left on device")
            return move(source, target, *words, **options)

        monkeypatch.setattr(os, name, moving)

    for name in ("rename", "replace", "link"):
        full(name)
    states, _, outcomes = execute(tmp_path)
    assert states["root"] is State.FAILED
    assert "free disk space" in outcomes["root"].message
    assert not (tmp_path / "dvc.lock").exists()
    monkeypatch.undo()
    states, _, _ = execute(tmp_path)
    assert states["root"] is State.DONE
    assert "up to date" in dvc(tmp_path, "status")
