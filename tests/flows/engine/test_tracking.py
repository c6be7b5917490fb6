"""Tracking against real SQLite stores, and against servers that are dead, slow, wrong or broken."""

import http.server
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import polars as pl
import pytest

from components.metrics.tables import CurveTable, MetricTable
from flows.engine.mlflow_store import MlflowStore, batches
from flows.engine.spool import Spool, backlog
from flows.engine.tracking import (
    PaperRecord,
    StageRecord,
    Summary,
    Tracker,
    default_uri,
    experiment_name,
    flatten,
    metric_name,
    thin,
)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    # Creating the schema takes seconds, so it is done once and copied.
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowStore(f"sqlite:///{path}", path.parent / "mlruns").end_unfinished("nobody")
    return path


@pytest.fixture
def workspace(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def stage(root: Path, kind="train", arm="vq", seed=0, points=500, **changes) -> StageRecord:
    folder = root / "runs" / kind / arm / f"s{seed}"
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "log").mkdir(exist_ok=True)
    if kind == "evaluate":
        table = MetricTable()
        table.add("psnr", 30.0 + seed, unit="dB", at={"k": 8}, samples=100)
        table.add_items("hits", [0.0, 1.0, 1.0, 1.0], unit="")
        table.write(folder / "run")
    else:
        curves = CurveTable()
        for step in range(points):
            curves.add("loss", step * 10, 1.0 / (step + 1))
        curves.write(folder / "run")
    (folder / "log" / "environment.json").write_text(
        json.dumps({"python": "3.11.7", "machine": {"threads": 1}, "peak_memory_bytes": 5e6, "packages": ["a==1"]})
    )
    values = {
        "stage": f"params/p/dvc.yaml:{kind}-{arm}-s{seed}",
        "kind": kind,
        "study": "image-tokenizer",
        "family": "image",
        "paper": "p",
        "variant": "cifar10",
        "arm": arm,
        "seed": seed,
        "profile": "small",
        "params": {"steps": 100, "optimiser": {"learning_rate": 1e-4}, "channels": [1, 2]},
        "run": folder / "run",
        "log": folder / "log",
        "started": 1_700_000_000.0 + seed,
        "ended": 1_700_000_010.0 + seed,
        "data": ["cifar10", "photos"],
        "hashes": {f"runs/{kind}": "abc.dir"},
        "code_digest": "d1gest",
    }
    return StageRecord(**values | changes)


def paper(root: Path, **changes) -> PaperRecord:
    figure = root / "curve.svg"
    figure.write_text("<svg/>")
    values = {
        "study": "image-tokenizer",
        "family": "image",
        "paper": "p",
        "variant": "cifar10",
        "profile": "small",
        "started": 1_700_000_000.0,
        "ended": 1_700_000_020.0,
        "summaries": [
            Summary("vq", "psnr", "k=8", 30.5, 30.0, 31.0, 3),
            Summary("jpeg", "psnr", "k=8", 25.0, float("-inf"), float("inf"), 1),
        ],
        "verdicts": {"beats-jpeg": "reproduced", "is-fast": "out of scale"},
        "figures": [figure],
    }
    return PaperRecord(**values | changes)


def track(root: Path, *records, uri=None, run_id="flow-1", timeout=60.0):
    tracker = Tracker(uri, root / "spool", run_id, "c0ffee", root=root)
    tracker.start()
    for record in records:
        (tracker.log_stage if isinstance(record, StageRecord) else tracker.finish_paper)(record)
    return tracker.close(timeout)


def runs_of(root: Path, experiment="image-tokenizer"):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000) if found else []
    return client, {run.info.run_name: run for run in runs}, len(runs)


def test_train_and_evaluate_of_an_arm_and_seed_meet_in_one_run_below_its_paper(workspace):
    state = track(workspace, stage(workspace), stage(workspace, "evaluate"), stage(workspace, seed=1), paper(workspace))
    assert (state.sent, state.waiting, state.problem) == (4, 0, "")
    client, runs, count = runs_of(workspace)
    assert sorted(runs) == ["p cifar10", "p vq s0", "p vq s1"]
    assert count == 3
    parent, child = runs["p cifar10"], runs["p vq s0"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"steps": "100", "optimiser.learning_rate": "0.0001", "channels": "[1, 2]"}
    assert child.data.metrics["psnr.k_8"] == 30.0
    assert child.data.metrics["hits"] == 0.75
    assert child.data.metrics["system/train.wall_seconds"] == 10.0
    assert child.data.metrics["system/evaluate.peak_memory_bytes"] == 5e6
    assert {tag: child.data.tags[tag] for tag in ("arm", "seed", "profile", "family", "study", "data", "paper")} == {
        "arm": "vq",
        "seed": "0",
        "profile": "small",
        "family": "image",
        "study": "image-tokenizer",
        "data": "cifar10, photos",
        "paper": "p",
    }
    assert (child.data.tags["unit.psnr"], child.data.tags["unit.hits"]) == ("dB", "1")
    assert child.data.tags["git_commit"] == "c0ffee"
    assert child.data.tags["dvc.runs/train"] == child.data.tags["dvc.runs/evaluate"] == "abc.dir"
    assert child.data.tags["code.train"] == "d1gest"
    assert child.data.tags["environment.train.machine.threads"] == "1"
    assert child.data.tags["environment.evaluate.packages"] == '["a==1"]'
    assert all(run.data.tags["flow_run_id"] == "flow-1" for run in runs.values())
    assert all(run.info.status == "FINISHED" for run in runs.values())
    points = client.get_metric_history(child.info.run_id, "curves/loss")
    assert len(points) == 200
    assert {0, 4990} <= {point.step for point in points}
    assert all(point.value == 1.0 / (point.step // 10 + 1) for point in points)


def test_the_parent_run_carries_mean_interval_and_n_the_verdicts_and_the_figures(workspace):
    track(workspace, stage(workspace), paper(workspace))
    client, runs, _ = runs_of(workspace)
    parent = runs["p cifar10"]
    assert parent.data.metrics == {
        "vq/psnr.k_8.mean": 30.5,
        "vq/psnr.k_8.low": 30.0,
        "vq/psnr.k_8.high": 31.0,
        "vq/psnr.k_8.n": 3.0,
        "jpeg/psnr.k_8.mean": 25.0,
        "jpeg/psnr.k_8.n": 1.0,
        "verdicts/reproduced": 1.0,
        "verdicts/out of scale": 1.0,
    }
    assert parent.data.tags["verdict.beats-jpeg"] == "reproduced"
    artifacts = client.list_artifacts(parent.info.run_id, "figures")
    assert [artifact.path for artifact in artifacts] == ["figures/curve.svg"]
    assert list((workspace / "mlruns").rglob("curve.svg"))


def test_runs_that_do_not_count_stand_in_their_own_experiments(workspace):
    track(workspace, stage(workspace, profile="smoke"), stage(workspace, exploratory=True))
    assert runs_of(workspace)[2] == 0
    assert runs_of(workspace, "image-tokenizer/smoke")[2] == 2
    assert runs_of(workspace, "image-tokenizer/exploratory")[2] == 2
    assert experiment_name("decoding", "full", False) == "decoding"


def test_a_failed_stage_stays_visible(workspace):
    track(workspace, stage(workspace, error="NonFiniteLoss: step 7"))
    _, runs, _ = runs_of(workspace)
    assert runs["p vq s0"].info.status == "FAILED"
    assert runs["p vq s0"].data.tags["failure.train"] == "NonFiniteLoss: step 7"


def test_plain_mlflow_ui_in_the_workspace_opens_the_default_database(workspace, monkeypatch):
    track(workspace, stage(workspace))
    monkeypatch.chdir(workspace)
    from mlflow.tracking._tracking_service.utils import _get_default_tracking_uri

    assert _get_default_tracking_uri() == "sqlite:///mlflow.db"
    assert default_uri(workspace) == f"sqlite:///{workspace}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert default_uri(workspace) == "http://127.0.0.1:5000"


def test_logging_returns_at_once_while_the_server_hangs(workspace, server):
    uri = server(hang=True)
    tracker = Tracker(uri, workspace / "spool", "flow-1", "c0ffee", root=workspace)
    tracker.start()
    reports = [stage(workspace, seed=seed) for seed in range(3)]
    began = time.perf_counter()
    for report in reports:
        tracker.log_stage(report)
    assert time.perf_counter() - began < 5  # the server never answers
    began = time.perf_counter()
    state = tracker.close(0.5)
    assert time.perf_counter() - began < 10
    assert (state.sent, state.waiting) == (0, 3)


@pytest.mark.parametrize("fault", ["dead", "slow", "broken", "wrong", "garbage"])
def test_a_server_that_fails_loses_nothing_and_the_next_run_sends_it_once(workspace, server, monkeypatch, fault):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = {
        "dead": lambda: f"http://127.0.0.1:{free_port()}",
        "slow": lambda: server(hang=True),
        "broken": lambda: server(status=500),
        "wrong": lambda: server(status=404),
        "garbage": lambda: server(status=200),
    }[fault]()
    reports = [stage(workspace), stage(workspace, "evaluate"), paper(workspace)]
    state = track(workspace, *reports, uri=uri, timeout=20)
    assert (state.sent, state.waiting, state.rejected, state.lost) == (0, 3, 0, 0)
    assert uri in state.problem
    state = track(workspace, stage(workspace, arm="jpeg"), run_id="flow-2")
    assert (state.sent, state.waiting) == (4, 0)
    client, runs, count = runs_of(workspace)
    assert count == 4  # Two parents, one of each flow run, and two children.
    old = [run for run in client.search_runs(["1"]) if run.data.tags["flow_run_id"] == "flow-1"]
    assert sorted(run.info.run_name for run in old) == ["p cifar10", "p vq s0"]
    assert runs["p vq s0"].data.metrics["psnr.k_8"] == 30.0
    assert len(client.get_metric_history(runs["p vq s0"].info.run_id, "curves/loss")) == 200
    assert backlog(workspace / "spool").waiting == 0
    assert list((workspace / "mlruns").rglob("curve.svg"))


def test_sending_records_again_changes_nothing(workspace):
    from flows.engine.mlflow_store import TrackingRecord

    dead = f"http://127.0.0.1:{free_port()}"
    track(workspace, stage(workspace), stage(workspace, "evaluate"), paper(workspace), uri=dead)
    records = [
        TrackingRecord.from_json(json.loads(path.read_text()))
        for path in sorted((workspace / "spool").glob("*/*.json"))
    ]

    def content():
        connection = sqlite3.connect(workspace / "mlflow.db")
        tables = ("runs", "metrics", "params", "tags", "latest_metrics")
        return {name: sorted(map(str, connection.execute(f"select * from {name}"))) for name in tables}

    contents = []
    for _ in range(2):
        store = MlflowStore(f"sqlite:///{workspace}/mlflow.db", workspace / "mlruns")
        for record in records:
            store.send(record)
        contents.append(content())
    assert contents[0] == contents[1]
    assert len(contents[0]["runs"]) == 2


def test_a_record_cut_off_in_the_middle_is_completed_by_sending_it_again(workspace, monkeypatch):
    from mlflow import MlflowClient

    real, calls = MlflowClient.log_batch, itertools.count()

    def cut(self, *args, **kwargs):
        if next(calls) == 1:
            raise ConnectionError("cut")
        return real(self, *args, **kwargs)

    many = {f"parameter{number}": number for number in range(250)}
    monkeypatch.setattr(MlflowClient, "log_batch", cut)
    state = track(workspace, stage(workspace, params=many))
    assert (state.sent, state.waiting) == (0, 1)
    state = track(workspace, run_id="flow-2")
    _, runs, count = runs_of(workspace)
    assert (state.sent, count) == (1, 2)
    assert len(runs["p vq s0"].data.params) == 250


def test_a_run_that_the_server_made_although_the_call_failed_is_found_again(workspace, monkeypatch):
    from mlflow import MlflowClient

    real, failures = MlflowClient.create_run, iter([True])

    def made_but_unanswered(self, *args, **kwargs):
        run = real(self, *args, **kwargs)
        if next(failures, False):
            raise TimeoutError("no answer")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", made_but_unanswered)
    track(workspace, stage(workspace))
    state = track(workspace, run_id="flow-2")
    assert (state.sent, runs_of(workspace)[2]) == (1, 2)


def test_a_run_that_the_server_makes_later_is_removed_when_its_paper_ends(workspace, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr("flows.engine.tracking.FIRST_RETRY_SECONDS", 0.01)
    real, late = MlflowClient.create_run, []

    def unanswered(self, *args, **kwargs):
        if not late:
            late.append(args)
            raise TimeoutError("no answer")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", unanswered)
    tracker = Tracker(None, workspace / "spool", "flow-1", "c0ffee", root=workspace)
    tracker.start()
    tracker.log_stage(stage(workspace))
    until(lambda: tracker.state.sent == 1)
    real(MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db"), *late[0])
    assert runs_of(workspace)[2] == 3
    tracker.finish_paper(paper(workspace))
    tracker.close(30)
    _, runs, count = runs_of(workspace)
    assert count == 2
    assert "vq/psnr.k_8.mean" in runs["p cifar10"].data.metrics


def test_a_server_that_comes_back_gets_everything_in_the_same_run(workspace, monkeypatch):
    monkeypatch.setattr("flows.engine.tracking.FIRST_RETRY_SECONDS", 0.05)
    down = iter([True, True])
    real = MlflowStore.send

    def send(self, *args):
        if next(down, False):
            raise ConnectionError("down")
        real(self, *args)

    monkeypatch.setattr(MlflowStore, "send", send)
    tracker = Tracker(None, workspace / "spool", "flow-1", "c0ffee", root=workspace)
    tracker.start()
    for seed in range(3):
        tracker.log_stage(stage(workspace, seed=seed))
    until(lambda: tracker.state.sent == 3)
    assert tracker.close(30).waiting == 0
    assert runs_of(workspace)[2] == 4


def test_a_locked_database_neither_holds_up_the_flow_nor_loses_a_record(workspace):
    track(workspace, stage(workspace))
    lock = sqlite3.connect(workspace / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    tracker = Tracker(None, workspace / "spool", "flow-2", "c0ffee", root=workspace)
    tracker.start()
    tracker.log_stage(stage(workspace, seed=1))
    began = time.perf_counter()
    assert tracker.close(1.0).waiting == 1
    assert time.perf_counter() - began < 10
    assert backlog(workspace / "spool").waiting == 1
    lock.execute("ROLLBACK")
    until(lambda: tracker.state.sent == 1)


def test_a_full_disk_under_the_database_keeps_the_record(workspace):
    fill = sqlite3.connect(workspace / "mlflow.db")
    fill.execute("PRAGMA journal_mode=DELETE")
    pages = fill.execute("PRAGMA page_count").fetchone()[0]
    fill.close()
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def no_room(connection, _):
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", no_room)
    try:
        state = track(workspace, stage(workspace))
    finally:
        event.remove(Engine, "connect", no_room)
    assert (state.sent, state.waiting) == (0, 1)
    assert "full" in state.problem


def test_where_the_disk_refuses_the_spool_records_go_straight_to_mlflow(workspace, monkeypatch):
    def full(self, *_):
        from flows.engine.spool import SpoolError

        raise SpoolError("No space left on device")

    monkeypatch.setattr(Spool, "write", full)
    state = track(workspace, stage(workspace))
    assert (state.sent, state.lost) == (1, 0)
    state = track(workspace, stage(workspace), uri=f"http://127.0.0.1:{free_port()}", run_id="flow-2")
    assert (state.sent, state.lost) == (0, 1)


def test_a_spool_that_cannot_be_made_does_not_stop_tracking(workspace):
    (workspace / "spool").write_text("a file where the folder should be")
    assert track(workspace, stage(workspace)).sent == 1


def test_a_record_that_mlflow_refuses_is_set_aside_and_the_others_go_on(workspace):
    changed = stage(workspace, "evaluate", params={"steps": 101})
    state = track(workspace, stage(workspace), changed, stage(workspace, seed=1))
    assert (state.sent, state.waiting, state.rejected) == (2, 0, 1)
    (aside,) = (workspace / "spool" / "rejected").glob("*.json")
    assert "steps" in json.loads(aside.read_text())["reason"]


def test_a_damaged_record_in_the_spool_is_set_aside(workspace):
    track(workspace, stage(workspace), uri=f"http://127.0.0.1:{free_port()}")
    (path,) = (workspace / "spool").glob("*/*.json")
    path.write_text('{"half')
    state = track(workspace, stage(workspace), run_id="flow-2")
    assert (state.sent, state.rejected) == (1, 1)


def test_a_run_deleted_in_the_ui_while_the_flow_goes_on_is_made_again(workspace):
    tracker = Tracker(None, workspace / "spool", "flow-1", "c0ffee", root=workspace)
    tracker.start()
    tracker.log_stage(stage(workspace))
    until(lambda: tracker.state.sent == 1)
    client, runs, _ = runs_of(workspace)
    client.delete_run(runs["p vq s0"].info.run_id)
    tracker.log_stage(stage(workspace, "evaluate"))
    assert tracker.close(30).sent == 2
    assert runs_of(workspace)[1]["p vq s0"].data.metrics["psnr.k_8"] == 30.0


def test_a_killed_driver_leaves_no_run_running_after_the_next_one(workspace):
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from flows.engine.tracking import Tracker; from tests.flows.engine.test_tracking import stage\n"
        "root = Path(sys.argv[1]); tracker = Tracker(None, root / 'spool', 'flow-1', 'c', root=root); tracker.start()\n"
        "tracker.log_stage(stage(root))\n"
        "while tracker.state.sent < 1: time.sleep(0.02)\n"
        "tracker.log_stage(stage(root, seed=1)); tracker.log_stage(stage(root, seed=2)); time.sleep(0.03)\n"
        "os.kill(os.getpid(), 9)"
    )
    project = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", code, str(workspace), project], check=False)
    assert runs_of(workspace)[1]["p cifar10"].info.status == "RUNNING"
    state = track(workspace, run_id="flow-2")
    assert (state.waiting, state.problem) == (0, "")
    _, runs, count = runs_of(workspace)
    assert count == len(runs) <= 4
    assert runs["p cifar10"].info.status == "KILLED"
    assert not list((workspace / "spool").glob("*"))


def test_an_interrupted_flow_that_closes_leaves_no_run_running(workspace):
    track(workspace, stage(workspace))
    assert runs_of(workspace)[1]["p cifar10"].info.status == "KILLED"


def test_tracking_opens_no_network_connection(workspace):
    code = (
        "import socket, sys; from pathlib import Path\n"
        "def refuse(self, address): sys.__stdout__.write(f'CONNECT {address}\\n')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "socket.getaddrinfo = lambda *a, **k: sys.__stdout__.write(f'LOOKUP {a}\\n')\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from tests.flows.engine.test_tracking import stage, track, paper\n"
        "root = Path(sys.argv[1]); state = track(root, stage(root), paper(root)); print(state.sent)"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        # MLflow switches its telemetry off by itself under pytest and in CI.
        if name not in ("PYTEST_CURRENT_TEST", "CI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    }
    project = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", code, str(workspace), project]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2"]


def test_importing_the_tracker_imports_neither_mlflow_nor_polars():
    code = "import sys, flows.engine.tracking; print({'mlflow', 'sqlalchemy', 'polars'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


def test_metric_names_carry_their_condition_in_legal_letters():
    assert metric_name("psnr", "k=8,split=test") == "psnr.k_8.split_test"
    assert metric_name("psnr", "") == "psnr"


@hypothesis.settings(deadline=None, derandomize=True, max_examples=200)
@hypothesis.given(st.text(max_size=300), st.text(max_size=300))
def test_any_metric_name_becomes_one_that_mlflow_takes(metric, at):
    from mlflow.utils.validation import _validate_metric

    _validate_metric(metric_name(metric, at), 1.0, 1, 0)


def test_two_metrics_whose_names_would_meet_keep_apart(workspace):
    report = stage(workspace, "evaluate")
    table = MetricTable()
    table.add("psnr", 1.0, unit="dB", at={"k": 8}, samples=1)
    table.add("psnr.k_8", 2.0, unit="dB", samples=1)
    table.add("psnr.k:8", 3.0, unit="dB", samples=1)
    table.write(report.run)
    track(workspace, report)
    metrics = runs_of(workspace)[1]["p vq s0"].data.metrics
    assert sorted(value for name, value in metrics.items() if name.startswith("psnr")) == [1.0, 2.0, 3.0]


@hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
@hypothesis.given(st.integers(1, 5000))
def test_a_thinned_series_keeps_its_ends_its_order_and_real_points(count):
    steps = [7 * index for index in range(count)]
    points = thin(steps, [float(step) for step in steps])
    assert len(points) == min(count, 200)
    assert points[0][0] == 0
    assert points[-1][0] == steps[-1]
    assert all(step == value for step, value in points)
    assert sorted({step for step, _ in points}) == [step for step, _ in points]


@hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
@hypothesis.given(st.integers(0, 3500), st.integers(0, 350), st.integers(0, 350))
def test_no_call_exceeds_the_limits_and_nothing_is_lost_or_doubled(metrics, params, tags):
    from mlflow.utils.validation import _validate_batch_log_limits

    calls = batches(range(metrics), range(params), range(tags))
    for call in calls:
        _validate_batch_log_limits(call[0], call[1], [*call[2], "sent"])
    for kind, count in enumerate((metrics, params, tags)):
        assert [item for call in calls for item in call[kind]] == list(range(count))


def test_nested_parameters_are_flattened_with_dots():
    assert flatten({"a": {"b": 1, "c": {"d": True}}, "e": "x", "f": None}) == {
        "a.b": "1",
        "a.c.d": "true",
        "e": "x",
        "f": "null",
    }


def test_long_texts_and_many_points_stay_below_the_request_limit_of_a_server(workspace):
    table = pl.DataFrame(
        {"series": ["loss" + "x" * 240] * 900, "step": range(900), "value": [0.1] * 900, "unit": [""] * 900}
    )
    report = stage(workspace, params={f"p{n}" + "x" * 240: "y" * 9000 for n in range(120)})
    table.write_parquet(report.run / "curves.parquet")
    seen = []
    from mlflow import MlflowClient

    real = MlflowClient.log_batch

    def measure(self, run_id, metrics, params, tags):
        entities = [*metrics, *params, *tags]
        seen.append(len(json.dumps([dict(entity) for entity in entities])))
        return real(self, run_id, metrics, params, tags)

    MlflowClient.log_batch = measure
    try:
        assert track(workspace, report).sent == 1
    finally:
        MlflowClient.log_batch = real
    assert max(seen) < 1_000_000


class _Fault(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.server.hang:
            self.server.stopped.wait()
            return
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"<html>not MLflow</html>")

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Start HTTP servers that accept everything and answer wrongly, or not at all."""
    started = []

    def start(status=200, hang=False):
        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Fault)
        httpd.daemon_threads = True
        httpd.status, httpd.hang, httpd.stopped = status, hang, threading.Event()
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        started.append(httpd)
        return f"http://127.0.0.1:{httpd.server_address[1]}"

    yield start
    for httpd in started:
        httpd.stopped.set()
        httpd.shutdown()
        httpd.server_close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, timeout=40.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
