"""Nodes with network namespaces and addresses of their own that share no files with the driver, and an S3 store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from ray_cluster import cluster, free_port, separation_refused
from workspace import command, commit, make_workspace, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "planted-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with a trained base, and the same reproduced on this machine alone."""
    root = make_workspace(tmp_path_factory.mktemp("separate") / "workspace", papers=1, code=True, dvc=True)
    write(root, "pyproject.toml", "[project]\nname = 'toy'\nversion = '0'\n")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n__pycache__/\n*.db\n*.db-*\n")
    for words in (["sync"], ["rebuild-base", "constant-0"]):
        command(root, sys.executable, "-m", "flows.cli", *words, timeout=600)
    commit(root, "base")
    alone = root.parent / "alone"
    shutil.copytree(root, alone, symlinks=True)
    command(alone, sys.executable, "-m", "flows.cli", "reproduce", "toy-0", timeout=900)
    return root, alone


@pytest.fixture(scope="module")
def place(made):
    """A cluster of three nodes, two of them separate, and an S3 store that all reach."""
    if reason := separation_refused():
        pytest.skip(f"network namespaces need more rights: {reason}")
    import boto3

    wanted = [{"cpus": 0}, {"cpus": 1}, {"cpus": 1}]
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(cluster(wanted, client=True, dashboard=True, separate=[made[0].parent], **KEYS))
        host, port = nodes.nodes[0].host, free_port(nodes.nodes[0].host)
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("moto_server")), "-H", host, "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(server.kill)
        url = f"http://{host}:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=1).close()
                break
        session = boto3.Session("testing", "planted-secret", region_name="us-east-1")
        session.client("s3", endpoint_url=url).create_bucket(Bucket="papers")
        for words in (
            ["add", "-d", "store", "s3://papers/store"],
            ["modify", "store", "endpointurl", url],
        ):
            command(made[0], sys.executable, "-m", "dvc", "remote", *words)
        commit(made[0], "remote")
        yield nodes


def hashes(root: Path) -> dict[str, str]:
    """The output hash of every stage but the judge's, whose verdicts tell of commit and time."""
    stages = yaml.safe_load((root / "params" / "toy-0" / "dvc.lock").read_text())["stages"]
    return {name: stage["outs"][0]["md5"] for name, stage in stages.items() if not name.endswith("judge")}


def copy(made, name: str) -> Path:
    root = made[0].parent / name
    shutil.copytree(made[0], root, symlinks=True)
    return root


def tessera(nodes, root: Path, *words: str) -> subprocess.CompletedProcess:
    environment = nodes.environment | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=root, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def test_without_a_remote_a_node_says_that_it_does_not_see_the_workspace(made, place):
    root = copy(made, "unshared")
    done = tessera(place, root, "reproduce", "toy-0", "--address", place.address, "--seeds", "0")
    assert done.returncode == 1
    assert "NoSharedWorkspace" in done.stdout
    assert "--remote" in done.stdout


def test_through_a_remote_the_lock_is_that_of_a_run_on_one_machine(made, place):
    root = copy(made, "through")
    done = tessera(place, root, "reproduce", "toy-0", "--address", place.address, "--remote", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashes(root) == hashes(made[1])
    for folder in ("train/mean/s0", "evaluate/median/s2"):
        log = root / "runs" / "toy-0" / "plain" / folder / "log"
        environment = json.loads((log / "environment.json").read_text())
        assert environment["git_commit"]
    ours, theirs = (top / "results" / "toy-0" / "plain" / "metrics.parquet" for top in (root, made[1]))
    assert ours.read_bytes() == theirs.read_bytes()
    assert "planted-secret" not in done.stdout + done.stderr
    again = tessera(place, root, "reproduce", "toy-0", "--address", place.address, "--remote", "store")
    assert "up to date" in again.stdout

    # Another clone of the same commit gets everything from the remote; only the judge runs, over a client connection.
    other = copy(made, "other")
    done = tessera(place, other, "reproduce", "toy-0", "--address", place.client, "--remote", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cached toy-0") == 12
    assert hashes(other) == hashes(made[1])


def test_a_submitted_job_leaves_its_runs_in_the_remote(made, place):
    root = copy(made, "job")
    write(
        root,
        "params/toy-0/paper.yaml",
        (root / "params/toy-0/paper.yaml").read_text().replace("minutes: 1", "steps: 9"),
    )
    done = tessera(place, root, "sync")
    assert done.returncode == 0, done.stderr
    words = ["job", "submit", "--address", place.dashboard, "--working-dir", ".", "--"]
    job = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), *words, sys.executable, "-m", "flows.cli", "reproduce", "toy-0"],
        cwd=root, env=place.environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert job.returncode == 0, job.stdout + job.stderr
    assert "mean-is-close" in job.stdout
    assert not (root / "runs").exists()
    done = tessera(place, root, "reproduce", "toy-0", "--address", place.address, "--remote", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cached toy-0") == 12


def test_a_job_submitted_without_the_token_is_refused(place):
    request = urllib.request.Request(
        f"{place.dashboard}/api/jobs/", data=b'{"entrypoint": "true"}', headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 401
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") != "planted-secret"
