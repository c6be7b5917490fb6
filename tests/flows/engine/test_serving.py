"""Doors are shut: what is started listens on loopback, and what others can reach asks for a password or token first."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from workspace import command, make_workspace, write

from flows.engine.serving import KINDS, Server, Unprotected, is_loopback, plan

WIDE = ["0.0.0.0", "10.0.0.7", "::", "192.168.1.2", "head-node", "127.0.0.1.example.org", "localhost.example.org", ""]
GOOD = {
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32,
    "MLFLOW_AUTH_ADMIN_PASSWORD": "p" * 32,
    "PREFECT_SERVER_API_AUTH_STRING": "tessera:" + "q" * 32,
    "RAY_AUTH_TOKEN": "t" * 64,
}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2", "[::1]"])
def test_loopback_is_told_from_other_addresses(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", WIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_others_can_reach_is_refused_without_authentication(kind, host, tmp_path):
    with pytest.raises(Unprotected, match=r"needs authentication: set .* in the environment"):
        plan(tmp_path, kind, host, environment={})
    assert host in plan(tmp_path, kind, host, environment=GOOD).command


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("mlflow", {"MLFLOW_AUTH_ADMIN_PASSWORD": ""}),
        ("mlflow", {"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}),
        ("mlflow", {"MLFLOW_FLASK_SERVER_SECRET_KEY": ""}),
        ("prefect", {"PREFECT_SERVER_API_AUTH_STRING": "no-colon-but-quite-long-all-the-same"}),
        ("prefect", {"PREFECT_SERVER_API_AUTH_STRING": "user:"}),
        ("prefect", {"PREFECT_SERVER_API_AUTH_STRING": ":" + "q" * 32}),
        ("ray", {"RAY_AUTH_TOKEN": "change-me"}),
        ("ray", {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "missing"}),
        ("ray", {"RAY_AUTH_MODE": "disabled"}),
    ],
)
def test_half_a_protection_is_none(kind, change, tmp_path):
    with pytest.raises(Unprotected) as refused:
        plan(tmp_path, kind, "0.0.0.0", environment=GOOD | change)
    assert not any(value in str(refused.value) for value in [*GOOD.values(), "no-colon-but"])


def test_a_ray_cluster_has_a_token_even_on_this_machine(tmp_path):
    with pytest.raises(Unprotected, match="RAY_AUTH_TOKEN"):
        plan(tmp_path, "ray", environment={})
    (tmp_path / "token").write_text("f" * 64 + "\n")
    planned = plan(tmp_path, "ray", environment={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert planned.settings["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_stands_on_a_command_line(kind, tmp_path):
    database = {"MLFLOW_BACKEND_STORE_URI": "postgresql://tessera:hunter2hunter2@db/mlflow"}
    for host in ("127.0.0.1", "0.0.0.0"):
        line = " ".join(plan(tmp_path, kind, host, environment=GOOD | database).command)
        assert not any(secret in line for secret in (*GOOD.values(), "q" * 32, "hunter2"))


def test_with_a_key_mlflow_asks_for_a_password_on_loopback_too(tmp_path):
    assert "basic-auth" in plan(tmp_path, "mlflow", environment=GOOD).command
    assert "basic-auth" not in plan(tmp_path, "mlflow", environment={}).command


def test_the_command_refuses_an_open_door_and_starts_nothing(tmp_path):
    root = make_workspace(tmp_path, papers=1)
    write(root, "dvc.yaml", "")
    for words in (["mlflow", "--host", "0.0.0.0"], ["prefect", "--host", "10.0.0.1"], ["ray"]):
        bare = {name: value for name, value in os.environ.items() if name not in {*GOOD, "RAY_AUTH_TOKEN_PATH"}}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "serve", *words], cwd=root, env=bare, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.startswith("Unprotected: ")
    said = command(root, sys.executable, "-m", "flows.cli", "serve", "mlfow", check=False)
    assert "Did you mean 'mlflow'?" in said.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(server: Server, folder: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen]:
    """Run a planned server, and end it and everything that it started."""
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*server.command, *words],
            cwd=folder,
            env=os.environ | variables | server.settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        started = [process, *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        for left in started[1:]:
            with contextlib.suppress(psutil.Error):
                left.kill()
        process.kill()
        process.wait()


def ask(url: str, body: object = None, headers: dict[str, str] | None = None) -> int:
    """Return the status of an answer; 0 where nobody answers."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def first_answer(process: subprocess.Popen, log: Path, *question: object) -> int:
    """Ask until somebody answers."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if status := ask(*question):
            return status
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def listening(process: subprocess.Popen) -> set[str]:
    """The addresses that a process and its children listen on."""
    found = set()
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {at.laddr.ip for at in each.net_connections("inet") if at.status == psutil.CONN_LISTEN}
    return found


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_an_unauthenticated_job_is_refused_and_nothing_of_a_cluster_listens_beyond_loopback():
    token, dashboard = secrets.token_hex(32), free_port()
    # Ray's sockets have long names, and a path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ts-"))
    try:
        variables = {"RAY_AUTH_TOKEN": token, "RAY_TMPDIR": str(folder)}
        server = plan(folder, "ray", port=free_port(), environment=variables)
        small = ["--num-cpus", "1", "--object-store-memory", str(80 * 2**20), "--dashboard-port", str(dashboard)]
        url = f"http://127.0.0.1:{dashboard}/api/jobs/"
        with running(server, folder, *small, **variables) as process:
            job = {"entrypoint": f"touch {folder}/ran"}
            assert first_answer(process, folder / "server.log", url, job) == 401
            assert ask(url, job, {"Authorization": f"Bearer {'0' * 64}"}) == 403
            assert ask(url) == 401
            assert ask(url, headers={"Authorization": f"Bearer {token}"}) == 200
            assert listening(process) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
            words = [word for each in psutil.Process(process.pid).children(recursive=True) for word in each.cmdline()]
            assert not any(token in word for word in words)
        assert not (folder / "ran").exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_mlflow_asks_for_a_password_and_takes_the_right_one(tmp_path):
    port = free_port()
    server = plan(tmp_path, "mlflow", "127.0.0.1", port, environment=GOOD)
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=5"
    with running(server, tmp_path, **GOOD) as process:
        assert first_answer(process, tmp_path / "server.log", url) == 401
        assert ask(url, headers=basic("admin", "wrong" * 5)) == 401
        assert ask(url, headers=basic("admin", "password1234")) == 401
        assert ask(url, headers=basic("admin", GOOD["MLFLOW_AUTH_ADMIN_PASSWORD"])) == 200
        assert listening(process) == {"127.0.0.1"}


@pytest.mark.slow
def test_prefect_asks_for_its_password_and_takes_the_right_one(tmp_path):
    port = free_port()
    server = plan(tmp_path, "prefect", "127.0.0.1", port, environment=GOOD)
    url = f"http://127.0.0.1:{port}/api/flows/filter"
    with running(server, tmp_path, PREFECT_HOME=str(tmp_path), **GOOD) as process:
        assert first_answer(process, tmp_path / "server.log", url, {}) == 401
        assert ask(url, {}, basic("tessera", "wrong" * 5)) == 401
        assert ask(url, {}, basic("tessera", "q" * 32)) == 200
        assert listening(process) == {"127.0.0.1"}
