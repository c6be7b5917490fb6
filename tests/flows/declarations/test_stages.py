"""The plan of stages: what exists, what it reads, where it writes."""

from __future__ import annotations

import pytest
from workspace import edit, make_workspace, write

from flows.declarations.stages import StageSpec, UnknownVariant, base_stage, plan_stages
from flows.declarations.workspace import UnknownBase, Workspace

PAPER = """\
slug: toy-0
title: Toy
family: text
study: toy
story: A story.
seeds: [0, 1, 2]
variants:
  plain: {canonical: true, bases: [constant-0]}
  show-case: {demo: true, seeds: [1], arms: [mean, borrowed, fixed]}
arms:
  mean: {says: the mean}
  borrowed: {uses: mean, rule: median, seeds: [1, 2]}
  fixed: {trained: false, seeds: [0, 1], resources: {cpus: 2, exclusive: true}}
profiles:
  smoke: {steps: 4, bases: []}
  small: {minutes: 1, resources: {memory: 1.5}}
  full: {needs: patience, bases: [constant-1], resources: {gpus: 0.5, memory: 8}}
claims: [{id: a, says: b, cites: c, scope: full-only, needs: d}]
"""


@pytest.fixture
def workspace(tmp_path):
    make_workspace(tmp_path, papers=0, bases=2)
    write(tmp_path, "params/toy-0/paper.yaml", PAPER)
    opened = Workspace.load(tmp_path)
    assert opened.problems() == []
    return opened


def plan(workspace, variant="plain", profile="small", **options):
    return {stage.name: stage for stage in plan_stages(workspace.paper("toy-0"), variant, profile, **options)}


def test_arms_seeds_and_variants_give_exactly_these_stages(workspace):
    assert list(plan(workspace)) == [
        "plain-train-mean-s0", "plain-train-mean-s1", "plain-train-mean-s2",
        "plain-evaluate-mean-s0", "plain-evaluate-mean-s1", "plain-evaluate-mean-s2",
        "plain-evaluate-borrowed-s1", "plain-evaluate-borrowed-s2",
        "plain-evaluate-fixed-s0", "plain-evaluate-fixed-s1",
        "plain-judge",
    ]  # fmt: skip
    assert list(plan(workspace, "show-case")) == [
        "show-case-train-mean-s1", "show-case-evaluate-mean-s1", "show-case-evaluate-borrowed-s1",
        "show-case-evaluate-fixed-s1", "show-case-judge",
    ]  # fmt: skip


def test_every_input_is_written_by_a_stage_and_nothing_is_written_twice(workspace):
    for profile in ("smoke", "small", "full"):
        stages = [s for variant in ("plain", "show-case") for s in plan(workspace, variant, profile).values()]
        bases = [base_stage(workspace, name) for name in workspace.bases]
        outputs = [stage.output for stage in stages + bases]
        assert len(set(outputs)) == len(outputs)
        assert {path for stage in stages for path in stage.inputs.values()} <= set(outputs)
        assert len({stage.address for stage in stages}) == len(stages)
        assert not any(a != b and a.startswith(f"{b}/") for a in outputs for b in outputs)


def test_an_evaluation_reads_the_model_of_the_arm_it_uses_with_its_own_seed(workspace):
    stages = plan(workspace)
    assert stages["plain-evaluate-borrowed-s2"].inputs == {
        "bases/constant-0": "bases/constant-0", "train": "runs/toy-0/plain/train/mean/s2/run",
    }  # fmt: skip
    assert "train" not in stages["plain-evaluate-fixed-s0"].inputs


def test_the_judge_reads_every_evaluation_and_the_training_behind_it(workspace):
    inputs = plan(workspace)["plain-judge"].inputs
    assert {name for name in inputs if name.startswith("evaluate/")} == {
        "evaluate/mean/s0", "evaluate/mean/s1", "evaluate/mean/s2",
        "evaluate/borrowed/s1", "evaluate/borrowed/s2", "evaluate/fixed/s0", "evaluate/fixed/s1",
    }  # fmt: skip
    assert inputs["train/borrowed/s1"] == inputs["train/mean/s1"] == "runs/toy-0/plain/train/mean/s1/run"
    assert not any(name.startswith("train/fixed") for name in inputs)


def test_smoke_runs_one_seed_of_each_arm_and_trains_what_they_need(workspace):
    stages = plan(workspace, profile="smoke", under=".tessera/smoke")
    assert list(stages) == [
        "plain-train-mean-s0", "plain-train-mean-s1", "plain-evaluate-mean-s0", "plain-evaluate-borrowed-s1",
        "plain-evaluate-fixed-s0", "plain-judge",
    ]  # fmt: skip
    assert stages["plain-train-mean-s0"].output == ".tessera/smoke/runs/toy-0/plain/train/mean/s0/run"
    assert stages["plain-judge"].output == ".tessera/smoke/results/toy-0/plain"
    assert all(not path.startswith("bases/") for stage in stages.values() for path in stage.inputs.values())


def test_the_full_profile_has_its_own_folders_file_bases_and_resources(workspace):
    stage = plan(workspace, profile="full")["plain-train-mean-s0"]
    assert stage.output == "runs/toy-0/plain/full/train/mean/s0/run"
    assert stage.file == "params/toy-0/full/dvc.yaml"
    assert stage.inputs == {"bases/constant-1": "bases/constant-1"}
    assert stage.resources == {"cpus": 1, "gpus": 0.5, "memory": 8}
    assert stage.arguments == ("train", "toy-0", "plain", "mean", "0", "--profile", "full")


def test_an_arm_overrides_only_the_resources_it_names(workspace):
    stages = plan(workspace)
    assert stages["plain-evaluate-mean-s0"].resources == {"cpus": 1, "memory": 1.5}
    assert stages["plain-evaluate-fixed-s0"].resources == {"cpus": 2, "memory": 1.5, "exclusive": True}


def test_a_stage_knows_its_command_module_and_parameters(workspace):
    stage = plan(workspace)["plain-evaluate-borrowed-s1"]
    assert stage.arguments == ("evaluate", "toy-0", "plain", "borrowed", "1")
    assert stage.module == "flows.studies.toy.evaluate"
    assert stage.resolve(workspace, {"spread": 9}).rule == "median"
    base = base_stage(workspace, "constant-1")
    assert (base.address, base.module, base.resolve(workspace).value) == (
        "base-constant-1", "flows.studies.bases.toy_constant", 2.0,
    )  # fmt: skip
    assert StageSpec.code().arguments == ("code",)


def test_what_only_evaluations_read_is_no_input_of_a_training(workspace):
    edit(
        workspace.root,
        "params/toy-0/paper.yaml",
        "{canonical: true,",
        "{canonical: true, evaluation_only: [constant-0],",
    )
    stages = plan(Workspace.load(workspace.root))
    assert "bases/constant-0" not in stages["plain-train-mean-s0"].inputs
    assert "bases/constant-0" in stages["plain-evaluate-mean-s0"].inputs


def test_unknown_variants_profiles_and_bases_are_refused_with_the_nearest_name(workspace):
    with pytest.raises(UnknownVariant, match=r"'plane' is no variant of toy-0\. Did you mean 'plain'"):
        plan(workspace, "plane")
    edit(workspace.root, "params/toy-0/paper.yaml", "  full: {", "  # full: {")
    paper = Workspace.load(workspace.root).paper("toy-0")
    with pytest.raises(UnknownVariant, match="no profile 'full'; expected one of smoke, small"):
        plan_stages(paper, "plain", "full")
    with pytest.raises(UnknownBase, match=r"'constant-3' is not in params/bases\.yaml\. Did you mean 'constant-"):
        base_stage(workspace, "constant-3")
