"""What a stage reserves: declared for a profile, changed by an arm, and where it ends up."""

from __future__ import annotations

import pytest
import yaml
from workspace import edit, make_workspace

from flows.declarations.problems import DeclarationError
from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import sync
from flows.engine.digests import unit_params
from flows.engine.dispatch import Resources
from flows.reproduction import reserved


@pytest.fixture
def root(tmp_path):
    made = make_workspace(tmp_path, papers=1)
    paper = "params/toy-0/paper.yaml"
    edit(made, paper, "small: {", "small: {resources: {cpus: 2, custom: {fast_disk: 1}}, ")
    edit(made, paper, "full: {", "full: {resources: {gpus: 0.5, memory: 64, workers: 4}, ")
    edit(made, paper, "median: {", "median: {resources: {cpus: 1, workers: 2}, ")
    return made


def stages(root, profile: str) -> dict:
    paper = Workspace.load(root).paper("toy-0")
    return {(spec.kind, spec.arm): spec for spec in plan_stages(paper, "plain", profile) if spec.seed == 0}


def test_a_profile_reserves_for_its_stages_and_an_arm_changes_what_it_names(root):
    small, full = stages(root, "small"), stages(root, "full")
    assert small["train", "mean"].resources == {"cpus": 2, "custom": {"fast_disk": 1}}
    assert small["train", "median"].resources == {"cpus": 1, "custom": {"fast_disk": 1}, "workers": 2}
    assert full["train", "mean"].resources == {"cpus": 1, "gpus": 0.5, "memory": 64, "workers": 4}
    assert full["train", "median"].resources == {"cpus": 1, "gpus": 0.5, "memory": 64, "workers": 2}
    assert stages(root, "smoke")["train", "mean"].resources == {"cpus": 1}


def test_only_trainings_have_workers_and_their_number_is_one_of_their_parameters(root):
    small = stages(root, "small")
    assert "workers" not in small["evaluate", "median"].resources
    assert small["judge", ""].resources == {"cpus": 1}
    workspace = Workspace.load(root)
    assert unit_params(workspace, small["train", "median"])["workers"] == 2
    assert "workers" not in unit_params(workspace, small["train", "mean"])
    assert "workers" not in unit_params(workspace, small["evaluate", "median"])


def test_what_is_declared_is_what_is_asked_of_ray_and_what_stands_in_dvc_yaml(root):
    spec = stages(root, "full")["train", "median"]
    assert reserved(spec) == Resources(cpus=1, gpus=0.5, memory=64 * 2**30, workers=2)
    assert reserved(stages(root, "small")["train", "mean"]).wanted() == {"CPU": 2, "fast_disk": 1}
    sync(root)
    compiled = yaml.safe_load((root / "params/toy-0/dvc.yaml").read_text())["stages"]
    assert compiled["plain-train-median-s0"]["meta"] == {"cpus": 1, "custom": {"fast_disk": 1}, "workers": 2}


@pytest.mark.parametrize("wrong", ["{workers: 0}", "{custom: {fast_disk: 0}}", "{custom: 3}", "{gpu: 1}"])
def test_what_cannot_be_reserved_is_refused_where_it_is_declared(root, wrong):
    edit(root, "params/toy-0/paper.yaml", "resources: {cpus: 1, workers: 2}", f"resources: {wrong}")
    with pytest.raises(DeclarationError, match="resources"):
        stages(root, "small")
