"""A stage on a machine that does not see the driver's workspace, without Ray: two folders stand for two machines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from workspace import command, make_workspace

from components.errors import TesseraError
from flows import away
from flows.away import run_away
from flows.declarations.stages import base_stage, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import sync
from flows.engine.exchange import AWAY_FUNCTION, Exchange
from flows.engine.graph import DvcGraph
from flows.engine.object_store import ObjectStore
from flows.reproduction import read_result, stage_call
from flows.stage import run_stage


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A workspace whose base is trained, with a remote that is a plain folder."""
    import sys

    root = make_workspace(tmp_path_factory.mktemp("driver") / "workspace", papers=1, dvc=True)
    sync(root)
    command(root, sys.executable, "-m", "dvc", "remote", "add", "-q", "store", str(root.parent / "remote"))
    run_stage(root, base_stage(Workspace.load(root), "constant-0"), set_values={})
    return root


@pytest.fixture
def machine(driver, tmp_path, monkeypatch):
    """This process as a worker on another machine: the code from Ray, an empty scratch folder."""
    code = tmp_path / "working_dir"
    shutil.copytree(driver / "params", code / "params")
    monkeypatch.setattr(away, "code_root", lambda: code)
    monkeypatch.setenv(away.SCRATCH, str(tmp_path / "scratch"))
    return tmp_path


def stages(root: Path) -> list:
    return plan_stages(Workspace.load(root).paper("toy-0"), "plain", "small")


def test_a_stage_away_leaves_what_a_stage_here_leaves(driver, machine):
    graph = DvcGraph(driver, remote="store")
    exchange = Exchange(graph, "store", "0123abc")
    local = ObjectStore({"url": str(machine / "unused")}, machine / "cache")
    train = next(spec for spec in stages(driver) if spec.kind == "train" and spec.arm == "median")
    evaluate = next(spec for spec in stages(driver) if spec.kind == "evaluate" and spec.arm == "median")
    for spec in (train, evaluate):
        run_stage(driver, spec, set_values={})
        here = local.put(driver / spec.output)
        call = exchange.call(stage_call(driver, spec), spec.inputs.values())
        shutil.rmtree(driver / spec.output)
        shutil.rmtree(driver / spec.log)
        assert call.function == AWAY_FUNCTION
        result = run_away(call.payload)
        assert result["status"] == "done", result
        assert result["output"] == {spec.output: here}
        exchange.take(result, spec.output, spec.log)
        assert local.put(driver / spec.output) == here
        assert '"git_commit": "0123abc"' in (driver / spec.log / "environment.json").read_text()
    assert list((machine / "scratch").rglob("run")) == []
    assert "TESSERA_GIT_COMMIT" not in os.environ
    graph.close()


def test_a_failure_away_is_told_with_the_end_of_its_log(driver, machine, monkeypatch):
    from flows.studies.toy import train as toy_train

    def fail(stage):
        print("the last words")
        raise ValueError("told to fail")

    monkeypatch.setattr(toy_train, "train", fail)
    graph = DvcGraph(driver, remote="store")
    exchange = Exchange(graph, "store", "")
    spec = stages(driver)[0]
    result = run_away(exchange.call(stage_call(driver, spec), spec.inputs.values()).payload)
    exchange.take(result, spec.output, spec.log)
    with pytest.raises(TesseraError, match="told to fail") as raised:
        read_result(driver, result)
    assert "the last words" in str(raised.value)
    graph.close()


def test_a_second_attempt_on_another_machine_goes_on_from_the_copied_checkpoint(driver, machine, monkeypatch):
    from flows.studies.toy import train as toy_train

    found = []

    def interrupted(stage):
        found.append(sorted(path.name for path in stage.checkpoint.iterdir()))
        (stage.checkpoint / "training").write_text("half way")
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_train, "train", interrupted)
    monkeypatch.setattr(away, "CHECKPOINT_SECONDS", 0.01)
    copied = away._Copies.__exit__

    def until_copied(copies, *raised):
        copies._copy()
        copied(copies, *raised)

    monkeypatch.setattr(away._Copies, "__exit__", until_copied)
    graph = DvcGraph(driver, remote="store")
    exchange = Exchange(graph, "store", "")
    spec = stages(driver)[0]
    call = exchange.call(stage_call(driver, spec), spec.inputs.values())
    for machine_name in ("first", "second"):
        monkeypatch.setenv(away.SCRATCH, str(machine / machine_name))
        with pytest.raises(KeyboardInterrupt):
            run_away(call.payload)
    assert found == [["signature"], ["signature", "training"]]
    monkeypatch.undo()
    monkeypatch.setattr(away, "code_root", lambda: machine / "working_dir")
    monkeypatch.setenv(away.SCRATCH, str(machine / "third"))
    assert run_away(call.payload)["status"] == "done"
    assert not list((driver.parent / "remote").rglob("checkpoints/*"))
    graph.close()


def test_a_changed_parameter_or_input_is_another_attempt(driver, machine):
    spec = stages(driver)[0]
    request = {**stage_call(driver, spec).payload, "away": {"inputs": {"bases/constant-0": "0" * 32}}}
    key = away._key(request)
    assert away._key(request) == key
    assert away._key({**request, "away": {"inputs": {"bases/constant-0": "1" * 32}}}) != key
    assert away._key({**request, "arguments": ["train", "toy-0", "plain", "mean", "1"]}) != key
    digests = machine / "working_dir" / "params" / "toy-0" / "digests.json"
    digests.write_text('{"plain-train-median": {"code": "other"}}')
    assert away._key(request) == key
    digests.write_text('{"plain-train-mean": {"code": "other"}}')
    assert away._key(request) != key


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "data/../../outside"])
def test_an_input_cannot_lead_out_of_the_workspace(path, driver, machine):
    spec = stages(driver)[0]
    given = {
        "remote": {"url": str(driver.parent / "remote")}, "inputs": {path: "0" * 32}, "commit": "", "workspace": "w",
    }  # fmt: skip
    result = run_away({**stage_call(driver, spec).payload, "away": given})
    assert result["status"] == "failed"
    assert "leads out of the workspace" in result["message"]
