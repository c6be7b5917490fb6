"""Real clusters of several nodes on this machine: addresses, resources, accelerators, groups of workers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import toy_dag
from group_training import OPTIMISATION, Network, curve, draw, noisy
from ray_cluster import cluster

from components.training.distributed import fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

WIDE = {f"s{number}": [] for number in range(4)} | {"end": [f"s{number}" for number in range(4)]}


@pytest.fixture(scope="module")
def nodes():
    """A head that runs no stages and two nodes: one with two logical GPUs, one with one and a resource of its own."""
    wanted = [{"cpus": 0}, {"cpus": 4, "gpus": 2}, {"cpus": 4, "gpus": 1, "resources": {"fast_disk": 1}}]
    with cluster(wanted, client=True) as made:
        yield made


def run(made, *words: str, timeout: float = 600, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=made.environment | variables, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["address", "client", "auto"])
def test_stages_run_on_the_nodes_of_an_address(nodes, tmp_path, kind):
    toy_dag.make(tmp_path, WIDE)
    address = {"address": nodes.address, "client": nodes.client, "auto": "auto"}[kind]
    environment = nodes.environment | ({"RAY_ADDRESS": nodes.address} if kind == "auto" else {})
    done = subprocess.run(
        [sys.executable, "-m", "toy_dag", "--drive", f"--address={address}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "end").read_text() == "5"
    assert "end DONE" in done.stdout
    assert (tmp_path / "dvc.lock").is_file()


def test_accelerators_are_given_whole_and_in_parts_and_never_twice(nodes):
    wanted = [{"gpus": 1, "seconds": 1.0}] * 5 + [{"gpus": 0.5, "seconds": 1.0}] * 6 + [{"gpus": 2}, {"cpus": 1}]
    wanted += [{"custom": {"fast_disk": 1}}, {"exclusive": True}, {"gpus": 3}, {"memory": 2**45}, {"custom": {"x": 1}}]
    said = json.loads(run(nodes, "-m", "gpu_probe", nodes.address, json.dumps(wanted)).splitlines()[-1])
    assert len(said) == len(wanted)
    by_name = {entry["name"]: entry for entry in said}
    refused = [by_name[number] for number in (15, 16, 17)]
    assert "3 GPU on one node, but the largest of 3 nodes has 2 GPU" in refused[0]["refused"]
    assert "GiB memory" in refused[1]["refused"]
    assert "the largest of 3 nodes has 0 x" in refused[2]["refused"]
    assert max(entry["after"] for entry in refused) < 5

    ran = [entry for entry in said if "node" in entry]
    for entry in ran:
        devices = [device for device in entry["visible"].split(",") if device]
        assert len(devices) == len(set(devices)) == (2 if entry["share"] == 2 else 1 if entry["share"] else 0), entry
        assert entry["threads"] == "1"
    # At the beginning of every call, all calls that hold one of its devices together hold at most the whole of it.
    for entry in ran:
        for device in filter(None, entry["visible"].split(",")):
            held = sum(
                min(other["share"], 1)
                for other in ran
                if other["node"] == entry["node"]
                and device in other["visible"].split(",")
                and other["began"] <= entry["began"] < other["ended"]
            )
            assert held <= 1, (entry, held)
    disk = by_name[13]["node"]
    assert {entry["node"] for entry in ran if entry["share"] == 2} == {by_name[11]["node"]} != {disk}
    assert len({(entry["node"], entry["visible"]) for entry in ran if entry["share"] in (0.5, 1)}) == 3


def test_a_group_of_workers_trains_like_one_process_and_survives_the_loss_of_one(nodes, tmp_path):
    expected = curve(fit(Network(), draw, noisy, OPTIMISATION, seed=5, shards=2, log_every=1))
    request = json.dumps({"folder": str(tmp_path), "die": True})
    said = json.loads(run(nodes, "-m", "group_training", nodes.address, request, "2", timeout=900).splitlines()[-1])
    assert said["status"] == "done", said
    assert said["workers"] == 2
    assert (tmp_path / "died").exists()
    assert said["first"] == 12
    assert said["loss"] == pytest.approx(expected, abs=1e-5)


def test_a_group_that_can_never_be_held_is_refused_before_it_is_started(nodes, tmp_path):
    request = json.dumps({"folder": str(tmp_path), "die": False})
    done = subprocess.run(
        [sys.executable, "-m", "group_training", nodes.address, request, "9"],
        env=nodes.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode != 0
    assert "9 workers with 1 CPU each, but the 3 nodes hold 8" in done.stderr


def test_a_wrong_token_is_refused_with_what_to_check(nodes, tmp_path):
    toy_dag.make(tmp_path, {"only": []})
    done = subprocess.run(
        [sys.executable, "-m", "toy_dag", "--drive", f"--address={nodes.address}"],
        cwd=tmp_path, env=nodes.environment | {"RAY_AUTH_TOKEN": "0" * 32}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode != 0
    assert "RAY_AUTH_TOKEN" in done.stderr
