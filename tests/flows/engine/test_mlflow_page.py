"""The address of MLflow's page: its filter selects exactly the runs meant, on a real server and in its web page."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from components.metrics.tables import MetricTable
from flows.engine.mlflow_page import LOCAL_PAGE, NoRuns, RunsPage, runs_page
from flows.engine.mlflow_store import MlflowStore
from flows.engine.tracking import PaperRecord, StageRecord, Tracker

STUDY = "image-tokenizer"


def stage(root: Path, paper: str, arm: str, seed: int, started: float, **changes) -> StageRecord:
    folder = root / "stages" / paper / arm / f"s{seed}"
    (folder / "run").mkdir(parents=True, exist_ok=True)
    table = MetricTable()
    table.add("psnr", 30.0 + seed, unit="dB", at={"k": 8}, samples=100)
    table.write(folder / "run")
    values = {
        "stage": f"evaluate-{arm}-s{seed}", "kind": "evaluate", "study": STUDY, "family": "image", "paper": paper,
        "variant": "cifar10", "arm": arm, "seed": seed, "profile": "small", "params": {"steps": 100},
        "run": folder / "run", "log": folder / "log", "started": started, "ended": started + 1, "data": ["cifar10"],
    }  # fmt: skip
    return StageRecord(**values | changes)


def track(root: Path, flow: str, *records: StageRecord) -> None:
    tracker = Tracker(f"sqlite:///{root}/mlflow.db", root / "spool", flow, "c0ffee", root=root)
    tracker.start()
    for record in records:
        tracker.log_stage(record)
    first = records[0]
    tracker.finish_paper(
        PaperRecord(
            study=STUDY, family="image", paper=first.paper, variant=first.variant, profile=first.profile,
            started=first.started, ended=first.started + 9, summaries=[], verdicts={"c": "reproduced"}, figures=[],
        )
    )  # fmt: skip
    assert tracker.close(60).problem == ""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two papers of one study, the first run twice; beside them what must not be shown."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowStore(f"sqlite:///{folder}/mlflow.db", folder / "mlruns")
    arms = [("vq", 0), ("vq", 1), ("plain", 0)]
    track(folder, "flow-1", *(stage(folder, "first-paper", arm, seed, 1.7e9) for arm, seed in arms))
    track(folder, "flow-2", *(stage(folder, "first-paper", arm, seed, 1.7e9 + 100) for arm, seed in arms))
    track(folder, "flow-3", *(stage(folder, "second-paper", arm, seed, 1.7e9 + 200) for arm, seed in arms))
    track(folder, "flow-4", stage(folder, "first-paper", "vq", 2, 1.7e9 + 300, variant="photos"))
    track(folder, "flow-5", stage(folder, "first-paper", "vq", 2, 1.7e9 + 400, error="NonFiniteLoss"))
    track(folder, "flow-6", stage(folder, "third-paper", "vq", 0, 1.7e9 + 500))
    track(folder, "flow-7", stage(folder, "first-paper", "vq", 0, 1.7e9 + 600, profile="full"))
    return folder


@pytest.fixture(scope="module")
def server(root):
    """MLflow's own server on a copy of that database, ended with its workers."""
    folder = root / "served"
    folder.mkdir()
    shutil.copyfile(root / "mlflow.db", folder / "mlflow.db")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    words += ["--artifacts-destination", str(folder), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "MLflow did not start"
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def query(page: RunsPage) -> dict[str, str]:
    """The parts of the address behind its question mark."""
    return dict(urllib.parse.parse_qsl(page.url.partition("?")[2]))


def selected(address: str, experiment: str, wanted: str) -> set[tuple[str, str]]:
    """Ask the server which runs a filter selects: (name, flow run)."""
    body = json.dumps({"experiment_ids": [experiment], "filter": wanted, "max_results": 1000}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        runs = json.load(answer).get("runs", [])
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
    return {(run["info"]["run_name"], of_run["flow_run_id"]) for run, of_run in zip(runs, tags, strict=True)}


def named(paper: str, flow: str) -> set[tuple[str, str]]:
    return {(f"{paper} {arm}", flow) for arm in ("vq s0", "vq s1", "plain s0")}


def test_the_database_of_the_workspace_gives_the_address_that_mlflow_ui_will_serve(root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = runs_page(root, STUDY, [("first-paper", "cifar10")], "psnr.k_8")
    assert page.url.startswith(f"{LOCAL_PAGE}/#/experiments/1/runs?")
    assert (page.runs, page.start) == (6, "mlflow ui")
    assert query(page)["searchFilter"] == page.filter
    assert query(page)["orderByKey"] == "metrics.`psnr.k_8`"
    both = runs_page(root, STUDY, [("first-paper", "cifar10"), ("second-paper", "cifar10")], "psnr.k_8")
    assert both.runs == both.filter.count("'") / 2 == 6


@pytest.mark.slow
def test_on_a_real_server_the_filter_selects_the_runs_of_these_papers_and_no_others(root, server, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    papers = [("first-paper", "cifar10"), ("second-paper", "cifar10")]
    local = [runs_page(root, STUDY, papers[:1], "psnr.k_8"), runs_page(root, STUDY, papers, "psnr.k_8")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    one, both = runs_page(root, STUDY, papers[:1], "psnr.k_8"), runs_page(root, STUDY, papers, "psnr.k_8")
    experiment = re.search(r"experiments/(\d+)/runs", one.url)[1]
    assert one.url.startswith(f"{server}/#/experiments/")
    assert selected(server, experiment, one.filter) == named("first-paper", "flow-1") | named("first-paper", "flow-2")
    assert one.runs == 6
    newest = named("first-paper", "flow-2") | named("second-paper", "flow-3")
    assert selected(server, experiment, both.filter) == newest
    assert both.runs == 6
    # The database, read directly, says the same.
    assert local[0].filter == one.filter
    assert selected(server, experiment, local[1].filter) == newest


@pytest.mark.slow
def test_runs_of_two_papers_share_metric_names_units_and_tags(root, server):
    body = json.dumps({"experiment_ids": ["1"], "filter": "tags.arm = 'vq'", "max_results": 1000}).encode()
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        runs = json.load(answer)["runs"]
    seen = {}
    for run in runs:
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        metrics = {metric["key"] for metric in run["data"]["metrics"] if not metric["key"].startswith("system/")}
        assert metrics == {"psnr.k_8"}
        assert tags["unit.psnr"] == "dB"
        seen.setdefault(tags["paper"], set()).update({"study", "data", "variant", "profile", "seed"} & tags.keys())
    assert {"first-paper", "second-paper"} <= seen.keys()
    assert all(tags == {"study", "data", "variant", "profile", "seed"} for tags in seen.values())


@pytest.mark.slow
def test_the_web_page_opens_with_the_filter_and_shows_these_runs(root, server, monkeypatch, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    page = runs_page(root, STUDY, [("first-paper", "cifar10"), ("second-paper", "cifar10")], "psnr.k_8")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    words += ["--disable-background-networking", f"--user-data-dir={tmp_path}", "--window-size=1600,1200"]
    words += ["--virtual-time-budget=60000", "--dump-dom", page.url]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=200, check=True).stdout
    text = re.sub(r"<[^>]+>", " ", shown)
    assert re.search(r"6\s+matching runs", text)
    assert "attributes.run_id IN (" in shown
    assert {name for name in re.findall(r"(?:first|second|third)-paper \w+ s\d", text)} == {
        name for name, _ in named("first-paper", "") | named("second-paper", "")
    }


def test_what_is_missing_is_said(root, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    papers = [("first-paper", "cifar10")]
    with pytest.raises(NoRuns, match=r"There is no mlflow\.db here yet"):
        runs_page(tmp_path, STUDY, papers, "psnr")
    with pytest.raises(NoRuns, match="no runs of this study yet"):
        runs_page(root, "decoding", papers, "psnr")
    with pytest.raises(NoRuns, match=r"no finished runs of other \(cifar10\)"):
        runs_page(root, STUDY, [*papers, ("other", "cifar10")], "psnr")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db/mlflow")
    with pytest.raises(NoRuns, match="set it to the http"):
        runs_page(root, STUDY, papers, "psnr")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(NoRuns, match="does not answer"):
        runs_page(root, STUDY, papers, "psnr")
    (tmp_path / "mlflow.db").write_text("no database")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(NoRuns, match="cannot be read"):
        runs_page(tmp_path, STUDY, papers, "psnr")


@pytest.mark.parametrize(
    "variables, header",
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}, "Basic bWU6c2VjcmV0"),
        ({}, None),
    ],
)
def test_a_server_that_asks_who_we_are_is_told_as_by_mlflows_own_client(monkeypatch, variables, header, tmp_path):
    import http.server
    import threading

    seen = []

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_error(403)

        def log_message(self, *_):
            pass

    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refusing = http.server.HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=refusing.handle_request, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing.server_address[1]}")
    with pytest.raises(NoRuns, match="refuses to answer"):
        runs_page(tmp_path, STUDY, [("first-paper", "cifar10")], "psnr")
    refusing.server_close()
    assert seen == [header]
