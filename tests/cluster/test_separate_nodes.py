"""Nodes with network namespaces and addresses of their own that share no files with the driver, and an S3 store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray_cluster import Cluster, cluster, free_port, separation_refused
from workspace import command, commit, edit, make_workspace, write

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
    with somewhere_else(made[0], client=True) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def jobs(made):
    """The same, and jobs may be submitted to it."""
    with somewhere_else(made[0], dashboard=True) as nodes:
        yield nodes


@contextlib.contextmanager
def somewhere_else(root: Path, **kinds: bool) -> Iterator[Cluster]:
    if reason := separation_refused():
        pytest.skip(f"network namespaces need more rights: {reason}")
    import boto3

    wanted = [{"cpus": 0}, {"cpus": 1}, {"cpus": 1}]
    with cluster(wanted, separate=[root.parent], **kinds, **KEYS) as nodes:
        host, port = nodes.nodes[0].host, free_port(nodes.nodes[0].host)
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("moto_server")), "-H", host, "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"http://{host}:{port}"
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                assert time.monotonic() < deadline, "the S3 store does not answer"
                time.sleep(0.2)
            session = boto3.Session("testing", KEYS["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
            session.client("s3", endpoint_url=url).create_bucket(Bucket="papers")
            for words in (["add", "-f", "-d", "store", "s3://papers/store"], ["modify", "store", "endpointurl", url]):
                command(root, sys.executable, "-m", "dvc", "remote", *words)
            commit(root, "remote")
            yield nodes
        finally:
            server.kill()
            server.wait()


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


def test_a_submitted_job_leaves_its_runs_in_the_remote(made, jobs):
    root = copy(made, "job")
    edit(root, "params/toy-0/paper.yaml", "minutes: 1", "minutes: 1, steps: 9")
    done = tessera(jobs, root, "sync")
    assert done.returncode == 0, done.stderr
    words = ["job", "submit", "--address", jobs.dashboard, "--working-dir", ".", "--"]
    job = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), *words, sys.executable, "-m", "flows.cli", "reproduce", "toy-0"],
        cwd=root, env=jobs.environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert job.returncode == 0, job.stdout + job.stderr
    assert "mean-is-close" in job.stdout
    assert not (root / "runs" / "toy-0").exists()
    done = tessera(jobs, root, "reproduce", "toy-0", "--address", jobs.address, "--remote", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cached toy-0") == 12


def test_a_job_submitted_without_the_token_is_refused(jobs):
    request = urllib.request.Request(
        f"{jobs.dashboard}/api/jobs/", data=b'{"entrypoint": "true"}', headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 401
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") != "planted-secret"
