"""What a stage may ask of a cluster, and what it is told; no Ray is started here (tests/cluster does)."""

from __future__ import annotations

import os
import re

import pytest

from flows.engine.dispatch import KEPT_MEMORY, ONE_THREAD, RayDispatch, Resources, Unsatisfiable

GIB = 2**30
SMALL, LARGE, GPUS = ("a" * 56, "b" * 56, "c" * 56)  # node ids are 28 bytes in hexadecimal
NODES = {
    SMALL: {"CPU": 2.0, "memory": 4.0 * GIB},
    LARGE: {"CPU": 16.0, "memory": 64.0 * GIB, "fast_disk": 1.0},
    GPUS: {"CPU": 4.0, "GPU": 2.0, "memory": 32.0 * GIB},
}


@pytest.fixture
def dispatch(monkeypatch):
    made = RayDispatch([])
    monkeypatch.setattr(made, "_nodes", lambda: NODES)
    return made


@pytest.mark.parametrize(
    "resources",
    [
        Resources(),
        Resources(cpus=16, memory=64 * GIB),
        Resources(gpus=2),
        Resources(gpus=0.25, cpus=4),
        Resources(custom={"fast_disk": 1}),
        Resources(exclusive=True, gpus=1),
    ],
)
def test_what_one_node_has_is_accepted(dispatch, resources):
    dispatch.check("stage", resources)


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        (Resources(cpus=17), "asks for 17 CPU on one node, but the largest of 3 nodes has 16 CPU"),
        (Resources(gpus=4), "asks for 1 CPU, 4 GPU on one node, but the largest of 3 nodes has 2 GPU"),
        (Resources(memory=100 * GIB), "100 GiB memory on one node, but the largest of 3 nodes has 64 GiB memory"),
        (Resources(custom={"tape": 1}), "1 tape on one node, but the largest of 3 nodes has 0 tape"),
        (Resources(cpus=8, gpus=1), "no node has all of it: 2 CPU, 0 GPU; 16 CPU, 0 GPU; 4 CPU, 2 GPU"),
    ],
)
def test_what_no_node_will_ever_have_is_refused_with_the_numbers(dispatch, resources, says):
    with pytest.raises(Unsatisfiable, match=re.escape(says)):
        dispatch.check("stage", resources)


def test_a_stage_that_measures_time_gets_the_smallest_node_that_holds_it_whole(dispatch):
    assert dispatch._whole_node(Resources(exclusive=True))["num_cpus"] == 2
    assert dispatch._whole_node(Resources(cpus=3, exclusive=True))["num_cpus"] == 4
    options = dispatch._whole_node(Resources(cpus=3, custom={"fast_disk": 1}, exclusive=True))
    assert options["num_cpus"] == 16
    assert options["scheduling_strategy"].node_id == LARGE


def test_options_are_spelled_as_ray_wants_them():
    wanted = Resources(cpus=2, gpus=0.5, memory=GIB, custom={"fast_disk": 1})
    assert wanted.ray_options() == {"num_cpus": 2, "num_gpus": 0.5, "memory": GIB, "resources": {"fast_disk": 1}}


def test_other_machines_are_told_threads_and_memory_and_get_only_code(tmp_path, monkeypatch):
    for name, value in (ONE_THREAD | KEPT_MEMORY).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    for folder in ("components", "flows", "params", "data", ".git", "bases"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mlflow.db").touch()
    environment = RayDispatch([], address="auto", code=tmp_path)._environment()
    assert (ONE_THREAD | KEPT_MEMORY).items() <= environment["env_vars"].items()
    assert "planted" not in str(environment)
    assert sorted(environment["excludes"]) == ["/.git", "/bases", "/data", "/mlflow.db"]
    assert RayDispatch([])._environment() == {}
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") == "planted"
