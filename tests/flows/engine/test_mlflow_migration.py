"""Runs tracked in the embedded database are all there after a move, value by value; files too."""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from flows.engine.mlflow_migration import MigrationRefused, migrate

METRICS = {"loss": [(0, 1.5), (1, 0.1 + 0.2), (2, math.nan), (3, math.inf)], "count": [(0, 3.0)]}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> tuple[str, Path]:
    """The URL of a database with two experiments, three runs, and files of one; and the folder of the files."""
    folder = tmp_path_factory.mktemp("tracked")
    url = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=url)
    for name in ("decoding", "image-tokenizer"):
        place = (folder / "mlruns" / name).as_uri()
        experiment = client.create_experiment(name, artifact_location=place, tags={"study": name})
        parent = client.create_run(experiment, run_name="paper", tags={"flow_run_id": "f", "note": "ä'\"\n%"})
        for key, points in METRICS.items():
            for step, value in points:
                client.log_metric(parent.info.run_id, key, value, timestamp=1000 + step, step=step)
        client.log_param(parent.info.run_id, "arms.mean.steps", "20")
        client.set_terminated(parent.info.run_id)
    (folder / "curve.svg").write_text("<svg/>")
    client.log_artifact(parent.info.run_id, str(folder / "curve.svg"), "figures")
    deleted = client.create_run(experiment)
    client.delete_run(deleted.info.run_id)
    return url, folder


def everything(url: str) -> dict[str, dict]:
    """What a client sees of every run, deleted ones too."""
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=url)
    found = {}
    for experiment in client.search_experiments(view_type=ViewType.ALL):
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL):
            history = {
                key: sorted(
                    (point.step, point.timestamp, repr(point.value))
                    for point in client.get_metric_history(run.info.run_id, key)
                )
                for key in run.data.metrics
            }
            found[run.info.run_id] = {
                "experiment": (experiment.experiment_id, experiment.name, experiment.tags),
                "info": (run.info.run_name, run.info.status, run.info.lifecycle_stage),
                "times": (run.info.start_time, run.info.end_time),
                "params": run.data.params,
                "tags": run.data.tags,
                "metrics": history,
            }
    return found


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own on loopback; the URL of an empty database."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    programs = programs or Path(shutil.which("initdb") or "missing").parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        words = [programs / "initdb", "-D", folder / "data", "-U", "mlflow", "-A", "trust", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, user=user, cwd="/")
        words = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "fsync=off"]
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd="/")
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            _wait_for(f"postgresql://mlflow@127.0.0.1:{port}/postgres")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for clients, as SIGTERM does
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    import psycopg2

    for _ in range(300):
        try:
            psycopg2.connect(url).close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")


def test_everything_arrives_and_the_source_stays(tracked, tmp_path):
    source, folder = tracked
    before = (folder / "mlflow.db").read_bytes()
    target = f"sqlite:///{tmp_path / 'new.db'}"
    moved = migrate(source, target)
    assert everything(target) == everything(source)
    assert (moved.rows["runs"], moved.rows["metrics"], moved.rows["experiments"]) == (3, 10, 3)
    assert "stay" in moved.notes[0]
    assert (folder / "mlflow.db").read_bytes() == before
    MlflowClient(tracking_uri=target).create_experiment("another")


@pytest.mark.slow
def test_files_move_and_runs_find_them(tracked, tmp_path):
    source, folder = tracked
    target = f"sqlite:///{tmp_path / 'new.db'}"
    moved = migrate(source, target, artifacts=str(tmp_path / "store"))
    assert moved.files == 1
    client = MlflowClient(tracking_uri=target)
    seen = everything(source)
    run = next(run for run in seen if seen[run]["experiment"][1] == "image-tokenizer" and seen[run]["params"])
    assert client.list_artifacts(run, "figures")[0].path == "figures/curve.svg"
    assert Path(client.download_artifacts(run, "figures/curve.svg")).read_text() == "<svg/>"
    assert client.get_run(run).info.artifact_uri.startswith((tmp_path / "store").as_uri())
    assert (folder / "mlruns").is_dir()


def test_a_target_with_runs_is_refused_and_left_alone(tracked, tmp_path):
    source, _ = tracked
    target = f"sqlite:///{tmp_path / 'new.db'}"
    client = MlflowClient(tracking_uri=target)
    run = client.create_run(client.create_experiment("own")).info.run_id
    with pytest.raises(MigrationRefused, match="holds 1 runs in 1 experiments"):
        migrate(source, target)
    assert list(everything(target)) == [run]


@pytest.mark.slow
def test_a_row_that_reads_back_differently_undoes_the_whole_move(tracked, tmp_path):
    source, _ = tracked
    target = tmp_path / "new.db"
    MlflowClient(tracking_uri=f"sqlite:///{target}").search_experiments()
    with sqlite3.connect(target) as database:
        database.execute(
            "create trigger faulty after insert on params "
            "begin update params set value = 'other' where key = new.key; end"
        )
    with pytest.raises(MigrationRefused, match="params read back differs"):
        migrate(source, f"sqlite:///{target}")
    assert everything(f"sqlite:///{target}") == {}


def test_what_is_no_tracking_database_is_refused_without_its_password(tracked, tmp_path):
    source, _ = tracked
    with pytest.raises(MigrationRefused, match="there is no database"):
        migrate(f"sqlite:///{tmp_path / 'missing.db'}", f"sqlite:///{tmp_path / 'new.db'}")
    (tmp_path / "other.db").touch()
    with pytest.raises(MigrationRefused, match="no tracking database"):
        migrate(f"sqlite:///{tmp_path / 'other.db'}", f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(MigrationRefused, match="cannot be used") as refused:
        migrate(source, "postgresql+psycopg2://mlflow:planted@127.0.0.1:9/mlflow")
    assert "planted" not in str(refused.value)
    with pytest.raises(MigrationRefused, match="same database"):
        migrate(source, source)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_on_postgresql_takes_over_and_shows_every_run(tracked, tmp_path):
    source, _ = tracked
    with postgresql() as url:
        moved = migrate(source, url, artifacts=str(tmp_path / "store"), named="mlflow-artifacts:/")
        assert moved.rows["metrics"] == 10
        assert everything(url) == everything(source)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["mlflow", "server", "--backend-store-uri", url, "--artifacts-destination", str(tmp_path / "store")]
        words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words[0] = str(Path(sys.executable).with_name("mlflow"))
        with open(tmp_path / "server.log", "w") as log:
            # Without its queues of jobs, which nothing here uses and which take ten processes.
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            server = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 400
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
            assert everything(address) == everything(source)
            client = MlflowClient(tracking_uri=address)
            run = next(run for run, seen in everything(source).items() if seen["params"] and client.list_artifacts(run))
            assert Path(client.download_artifacts(run, "figures/curve.svg")).read_text() == "<svg/>"
            # Counters go on behind what was copied.
            number = client.create_experiment("afterwards")
            assert int(number) > max(int(seen["experiment"][0]) for seen in everything(source).values())
            client.log_metric(client.create_run(number).info.run_id, "loss", 0.5)
        finally:
            _end_group(server)


def _end_group(server: subprocess.Popen) -> None:
    """End a server and every process of its session, which it has to itself."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(timeout=60)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == server.pid:
                process.kill()
    server.wait(timeout=60)
