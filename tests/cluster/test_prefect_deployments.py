"""The deployments of prefect.yaml on a real Prefect server with a real worker: run, schedule, cancel, fail."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from workspace import REPOSITORY, command, commit, edit, make_workspace, write

from flows.engine.prefect_server import SETTINGS, PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PREFECT = str(Path(sys.executable).with_name("prefect"))


class Prefect:
    """The server's API, as far as the tests need it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def deployment(self, name: str) -> dict[str, Any]:
        return self("GET", f"/deployments/name/reproduce/{name}")

    def start(self, name: str, **parameters: Any) -> str:
        run = self("POST", f"/deployments/{self.deployment(name)['id']}/create_flow_run", {"parameters": parameters})
        return run["id"]

    def run(self, run: str) -> dict[str, Any]:
        return self("GET", f"/flow_runs/{run}")

    def until(self, run: str, *states: str, seconds: float = 600) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (found := self.run(run))["state"]["type"] not in states:
            assert time.monotonic() < deadline, (found["state"], self.logs(run))
            time.sleep(1)
        return found

    def logs(self, run: str) -> str:
        entries = self("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return "\n".join(entry["message"] for entry in entries)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server, a clone of a toy workspace deployed to it, and a worker for its pool."""
    folder = tmp_path_factory.mktemp("prefect")
    root = make_workspace(folder / "workspace", papers=1, code=True, dvc=True)
    write(root, "pyproject.toml", "[project]\nname = 'toy'\nversion = '0'\n")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n__pycache__/\n*.db\n*.db-*\n")
    shutil.copy(REPOSITORY / "prefect.yaml", root)
    for words in (["sync"], ["rebuild-base", "constant-0"]):
        command(root, sys.executable, "-m", "flows.cli", *words, timeout=600)
    commit(root, "base")
    patch = pytest.MonkeyPatch()
    patch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "2")
    server = PrefectServer(folder / "server")
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(patch.undo)
        stack.callback(server.close)
        server.wait_ready(300)
        environment = os.environ | SETTINGS | {
            "PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "home"), "PYTHONPATH": str(root),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PWD": str(root),  # what prefect.yaml names; a shell keeps it, and `cwd` alone does not
            "PATH": os.pathsep.join([str(Path(PREFECT).parent), os.environ["PATH"]]),
        }  # fmt: skip

        def prefect(*words: str) -> None:
            done = subprocess.run(
                [PREFECT, *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stdout + done.stderr

        prefect("work-pool", "create", "tessera", "--type", "process")
        prefect("--no-prompt", "deploy", "--all")
        log = stack.enter_context(open(folder / "worker.log", "w"))
        worker = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "tessera"],
            cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        stack.callback(_end, worker)
        api = Prefect(server.url)
        for name in ("nightly-smoke", "weekly-small"):  # the tests choose when
            for schedule in api.deployment(name)["schedules"]:
                api("PATCH", f"/deployments/{api.deployment(name)['id']}/schedules/{schedule['id']}", {"active": False})
        yield api, root


def _end(worker: subprocess.Popen) -> None:
    started = psutil.Process(worker.pid).children(recursive=True)
    worker.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=30)
    for process in [*started, psutil.Process(worker.pid)] if worker.poll() is None else started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def test_the_three_deployments_are_there_with_their_schedules_and_parameters(place):
    api, _ = place
    found = {name: api.deployment(name) for name in ("nightly-smoke", "weekly-small", "on-demand")}
    crons = {name: [each["schedule"]["cron"] for each in deployed["schedules"]] for name, deployed in found.items()}
    assert crons == {"nightly-smoke": ["0 2 * * *"], "weekly-small": ["0 4 * * 6"], "on-demand": []}
    assert found["weekly-small"]["parameters"] == {"profile": "small", "force": True, "drift": True}
    asked = found["on-demand"]["parameter_openapi_schema"]["properties"]
    assert {"papers", "profile", "address", "remote"} <= asked.keys()


def test_a_schedule_fires_and_the_smoke_of_all_papers_completes(place):
    api, _ = place
    name = api.deployment("nightly-smoke")["id"]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
    api(
        "POST",
        f"/deployments/{name}/schedules",
        [{"schedule": {"interval": 86400, "anchor_date": later.isoformat()}, "active": True}],
    )
    deadline = time.monotonic() + 600
    query = {"flow_runs": {"deployment_id": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 5}
    while True:
        runs = [run for run in api("POST", "/flow_runs/filter", query) if run["auto_scheduled"]]
        if runs and runs[0]["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"):
            break
        assert time.monotonic() < deadline, runs
        time.sleep(1)
    assert runs[0]["state"]["type"] == "COMPLETED", (runs[0]["state"], api.logs(runs[0]["id"]))


def test_a_run_on_demand_shows_its_stages_and_a_weekly_one_its_drift(place):
    api, root = place
    run = api.start("on-demand", papers=["toy-0"], profile="small")
    found = api.until(run, "COMPLETED", "FAILED", "CRASHED")
    assert found["state"]["type"] == "COMPLETED", (found["state"], api.logs(run))
    tasks = api("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert len(tasks) == 13
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    commit(root, "results")

    # What is committed is changed by hand: the weekly run must notice.
    import polars as pl

    path = root / "results" / "toy-0" / "plain" / "metrics.parquet"
    pl.read_parquet(path).with_columns(pl.col("value") + 1e-9).write_parquet(path)
    commit(root, "other numbers")
    run = api.start("weekly-small", papers=["toy-0"])
    found = api.until(run, "COMPLETED", "FAILED", "CRASHED")
    assert found["state"]["name"] == "Drifted", (found["state"], api.logs(run))
    assert "1 of 1 variants moved: toy-0 / plain" in found["state"]["message"]
    [artifact] = api("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert "| toy-0 | plain | bit for bit |" in artifact["data"]


def test_a_run_that_fails_shows_why(place):
    api, root = place
    edit(root, "flows/studies/toy/rules/median.py", "def estimate(", "def missing(")
    try:
        run = api.start("on-demand", papers=["toy-0"])
        found = api.until(run, "COMPLETED", "FAILED", "CRASHED")
    finally:
        edit(root, "flows/studies/toy/rules/median.py", "def missing(", "def estimate(")
    assert found["state"]["type"] == "FAILED"
    assert "plain-evaluate-median-s0" in found["state"]["message"]
    assert "log.txt" in found["state"]["message"]
    tasks = api("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    failed = [task for task in tasks if task["state"]["type"] == "FAILED" and "evaluate-median-s0" in task["name"]]
    assert failed
    assert "estimate" in failed[0]["state"]["message"]


def test_cancelling_a_run_stops_its_stages(place):
    api, root = place
    edit(root, "params/toy-0/paper.yaml", "small: {minutes: 1", "small: {pause: 600.0, minutes: 1")
    run = api.start("on-demand", papers=["toy-0"])

    def stages() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"] and process.info["cmdline"][0].startswith("ray::params/toy-0")
        ]

    deadline = time.monotonic() + 600
    while not (running := stages()):
        assert time.monotonic() < deadline, api.logs(run)
        time.sleep(1)
    api("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    api.until(run, "CANCELLED", "CRASHED", "FAILED")
    _, alive = psutil.wait_procs(running, timeout=90)
    assert alive == []
    assert api.run(run)["state"]["type"] == "CANCELLED"
    assert not (root / "runs" / "toy-0" / "plain" / "train" / "mean" / "s0" / ".run.writing").exists()
    edit(root, "params/toy-0/paper.yaml", "small: {pause: 600.0, minutes: 1", "small: {minutes: 1")
