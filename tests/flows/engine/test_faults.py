"""Deaths in the middle of a run: nothing is left behind, nothing is lost, the next run ends in the same place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import toy_dag

from flows.engine.dispatch import KEPT_MEMORY, ONE_THREAD

CHAIN = {"first": [], "slow": ["first"], "other": [], "end": ["slow", "other"]}


def start(root: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "toy_dag", "--drive"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def children(driver: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def finish(root: Path) -> dict[str, str]:
    driver = start(root)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    return outcomes(out)


def outcomes(text: str) -> dict[str, str]:
    """Read the driver's lines; Ray tells of lost workers on the same stream."""
    lines = (line.split() for line in text.splitlines())
    return {words[0]: words[1] for words in lines if len(words) > 1 and words[0] in CHAIN}


def is_recorded(root: Path, name: str) -> bool:
    lock = root / "dvc.lock"
    return lock.exists() and f"\n  {name}:\n" in lock.read_text()


def test_a_killed_driver_leaves_no_process_and_the_next_run_goes_on_where_it_was(tmp_path):
    toy_dag.make(tmp_path, CHAIN, {"slow": "1 sleep=60"})
    driver = start(tmp_path)
    until(lambda: toy_dag.runs(tmp_path, "slow") == 1 and is_recorded(tmp_path, "first"), 60, "the slow stage")
    started = children(driver)
    assert any("raylet" in process.name() for process in started)
    worker = psutil.Process(int((tmp_path / ".traces" / "slow").read_text()))
    assert (ONE_THREAD | KEPT_MEMORY).items() <= worker.environ().items()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    until(lambda: not left(started), 30, "the end of the driver's processes")
    assert not (tmp_path / "out" / "slow").exists()
    (tmp_path / "in" / "slow.txt").write_text("1")
    states = finish(tmp_path)
    assert (states["first"], states["slow"], states["end"]) == ("CLEAN", "DONE", "DONE")
    assert (tmp_path / "out" / "end").read_text() == "4"


def test_an_interrupt_stops_the_run_cleanly_and_a_second_driver_is_refused_meanwhile(tmp_path):
    toy_dag.make(tmp_path, CHAIN, {"slow": "1 sleep=60"})
    driver = start(tmp_path)
    until(lambda: toy_dag.runs(tmp_path, "slow") == 1, 60, "the slow stage")
    second = start(tmp_path)
    _, refused = second.communicate(timeout=30)
    assert second.returncode != 0
    assert "WorkspaceBusy" in refused
    assert str(driver.pid) in refused
    started = children(driver)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 0, err
    states = outcomes(out)
    assert states["slow"] == states["end"] == "STOPPED"
    until(lambda: not left(started), 30, "the end of the driver's processes")


def test_a_worker_that_is_killed_is_replaced_and_the_stage_runs_again(tmp_path):
    toy_dag.make(tmp_path, CHAIN, {"slow": "1 die-once"})
    states = finish(tmp_path)
    assert set(states.values()) == {"DONE"}
    assert toy_dag.runs(tmp_path, "slow") == 2
    assert (tmp_path / "out" / "end").read_text() == "4"
    workers = {name: (tmp_path / ".traces" / name).read_text().split() for name in CHAIN}
    assert workers["slow"][0] != workers["slow"][1]


def test_ray_listens_on_loopback_alone_and_refuses_a_wrong_token(tmp_path):
    toy_dag.make(tmp_path, {"slow": []}, {"slow": "1 sleep=30"})
    driver = start(tmp_path)
    try:
        until(lambda: toy_dag.runs(tmp_path, "slow") == 1, 60, "the slow stage")
        listening = set()
        gcs = ""
        for process in children(driver):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.add(connection.laddr.ip)
                    if "gcs_server" in process.name():
                        gcs = f"127.0.0.1:{connection.laddr.port}"
        assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        stranger = subprocess.run(
            [sys.executable, "-c", f"import ray; ray.init(address='{gcs}', log_to_driver=False)"],
            env=os.environ
            | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert stranger.returncode != 0
        assert "token" in stranger.stderr.lower() or "unauthenticated" in stranger.stderr.lower()
    finally:
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=60)
