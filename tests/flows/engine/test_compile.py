"""From declarations to dvc.yaml, against DVC's own reading of it."""

from __future__ import annotations

import sys

import pytest
import yaml
from workspace import command, edit, make_workspace, write

from flows.declarations.problems import DeclarationError
from flows.declarations.workspace import UnknownPaper, Workspace
from flows.engine.compile import all_stages, digest_files, stage_command, sync


def files(root):
    return {
        path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and ".tessera" not in path.parts
    }


def stages(root, path):
    return yaml.safe_load((root / path).read_text())["stages"]


@pytest.fixture
def root(tmp_path):
    made = make_workspace(tmp_path, papers=2, arms=3, seeds=2, variants=2, bases=2)
    sync(made)
    return made


def test_every_planned_stage_stands_in_a_dvc_yaml_and_nothing_else(root):
    found = {}
    for path in ("dvc.yaml", "params/toy-0/dvc.yaml", "params/toy-1/dvc.yaml"):
        found |= {(path, name): entry["cmd"] for name, entry in stages(root, path).items()}
    assert found == {(s.file, s.name): stage_command(s) for s in all_stages(Workspace.load(root))}


def test_compiling_again_changes_no_byte_and_no_time_stamp(root):
    before = {path: path.stat().st_mtime_ns for path in files(root)}
    assert sync(root) == []
    assert {path: path.stat().st_mtime_ns for path in files(root)} == before


def test_two_workspaces_with_the_same_declarations_compile_to_the_same_bytes(root, tmp_path):
    other = make_workspace(tmp_path / "other", papers=2, arms=3, seeds=2, variants=2, bases=2)
    sync(other)
    for path in ("dvc.yaml", "params/toy-0/dvc.yaml", "params/schema/paper.schema.json"):
        assert (other / path).read_bytes() == (root / path).read_bytes()


def test_checking_lists_the_differences_and_writes_nothing(root):
    edit(root, "params/toy-0/paper.yaml", "seeds: [0, 1]", "seeds: [0, 2]")
    edit(root, "params/toy-1/paper.yaml", "the mean}", "a mean}")
    (root / "params/schema/bases.schema.json").unlink()
    before = files(root)
    changes = {change.path: str(change) for change in sync(root, check=True)}
    assert files(root) == before
    assert sorted(changes) == ["params/schema/bases.schema.json", "params/toy-0/dvc.yaml", "params/toy-1/dvc.yaml"]
    assert changes["params/schema/bases.schema.json"].startswith("create ")
    assert changes["params/toy-0/dvc.yaml"].startswith("update params/toy-0/dvc.yaml: new: plain-train-mean-s2, ")
    assert "gone: plain-train-mean-s1, " in changes["params/toy-0/dvc.yaml"]
    assert "changed: plain-train-mean-s0, " in changes["params/toy-1/dvc.yaml"]
    assert {change.path for change in sync(root)} == set(changes)
    assert sync(root, check=True) == []


def test_a_dvc_yaml_damaged_by_hand_is_compiled_anew(root):
    good = (root / "params/toy-0/dvc.yaml").read_bytes()
    for damage in (b"", b"stages: [", b"\xff", b"a: 1\na: 2\n", b"stages: 3\n"):
        (root / "params/toy-0/dvc.yaml").write_bytes(damage)
        assert [change.path for change in sync(root)] == ["params/toy-0/dvc.yaml"]
        assert (root / "params/toy-0/dvc.yaml").read_bytes() == good


def test_faulty_declarations_change_nothing(root):
    edit(root, "params/toy-0/paper.yaml", "seeds: [0, 1]", "seeds: [0, 2]")
    edit(root, "params/toy-1/paper.yaml", "rule: median", "rule: modus")
    edit(root, "params/bases.yaml", "bases: []", "bases: [constant-1]")
    before = files(root)
    with pytest.raises(DeclarationError) as raised:
        sync(root)
    assert files(root) == before
    assert "constant-0 -> constant-1 -> constant-0" in str(raised.value)
    assert "params/toy-1/paper.yaml:12: arms.median.rule" in str(raised.value)


LOCK = """\
schema: '2.0'
stages:
  plain-train-mean-s0:
    cmd: python -m flows.stage train toy-0 plain mean 0
    params:
      params/toy-0/digests.json:
        plain-train-mean.code: abc
        plain-train-mean.params:
          steps: 20
    outs:
    - path: runs/toy-0/plain/train/mean/s0/run
      md5: f051ad796c0453d949c7e5f309277922.dir
  forgotten-train-mean-s0:
    cmd: >-
      a

      b
    outs:
    - path: x
  plain-judge:
    cmd: python -m flows.stage judge toy-0 plain
  forgotten-judge:
    cmd: z
"""


def test_lock_entries_of_stages_that_are_gone_are_removed_and_the_others_kept_as_they_are(root):
    write(root, "params/toy-0/dvc.lock", LOCK)
    (change,) = sync(root, check=True)
    assert str(change) == "update params/toy-0/dvc.lock: gone: forgotten-train-mean-s0, forgotten-judge"
    assert (root / "params/toy-0/dvc.lock").read_text() == LOCK
    sync(root)
    text = (root / "params/toy-0/dvc.lock").read_text()
    expected = yaml.safe_load(LOCK)
    del expected["stages"]["forgotten-train-mean-s0"], expected["stages"]["forgotten-judge"]
    assert yaml.safe_load(text) == expected
    assert all(line in LOCK.splitlines() for line in text.splitlines())


def test_a_paper_that_is_gone_leaves_no_stages_behind_but_foreign_files_stay(root):
    for name in ("dvc.lock", "digests.json", "notes.md"):
        write(root, f"params/toy-1/{name}", "schema: '2.0'\n")
    write(root, "params/other/dvc.yaml", "stages: {}\n")
    (root / "params/toy-1/paper.yaml").unlink()
    changes = [str(change) for change in sync(root)]
    assert changes == [
        "update dvc.yaml: changed: code",
        "remove params/toy-1/digests.json: no declaration stands for it",
        "remove params/toy-1/dvc.lock: no declaration stands for it",
        "remove params/toy-1/dvc.yaml: no declaration stands for it",
    ]
    assert sorted(path.name for path in (root / "params/toy-1").iterdir()) == ["notes.md"]
    assert (root / "params/other/dvc.yaml").is_file()


def test_the_full_profile_is_compiled_only_when_asked_for_and_then_kept_up_to_date(root):
    assert not list(root.glob("params/*/full"))
    changes = [change.path for change in sync(root, profile="full", papers=["toy-1"])]
    assert changes == ["dvc.yaml", "params/toy-1/full/dvc.yaml"]
    assert sync(root, check=True) == []
    entry = stages(root, "params/toy-1/full/dvc.yaml")["plain-train-mean-s0"]
    assert entry["cmd"] == "python -m flows.stage train toy-1 plain mean 0 --profile full"
    assert entry["wdir"] == "../../.."
    assert entry["outs"] == ["runs/toy-1/plain/full/train/mean/s0/run"]
    assert entry["params"] == [
        {"params/toy-1/full/digests.json": ["plain-train-mean.code", "plain-train-mean.params"]}
    ]  # fmt: skip
    assert "params/toy-1/full/digests.json" in digest_files(Workspace.load(root))
    edit(root, "params/toy-1/paper.yaml", "seeds: [0, 1]", "seeds: [0]")
    assert "params/toy-1/full/dvc.yaml" in [change.path for change in sync(root)]
    with pytest.raises(UnknownPaper):
        sync(root, profile="full", papers=["toy-7"])


def test_bases_are_frozen_results_are_in_git_and_runs_in_the_cache(root):
    top, paper = stages(root, "dvc.yaml"), stages(root, "params/toy-0/dvc.yaml")
    assert top["base-constant-1"]["frozen"] is True
    assert top["base-constant-1"]["deps"] == ["bases/constant-0"]
    assert top["base-constant-1"]["outs"] == [{"bases/constant-1": {"cache": False}}]
    assert paper["plain-judge"]["outs"] == [{"results/toy-0/plain": {"cache": False}}]
    assert paper["plain-train-mean-s0"]["outs"] == ["runs/toy-0/plain/train/mean/s0/run"]
    assert top["code"]["always_changed"] is True
    assert all(options == {"cache": False, "persist": True} for out in top["code"]["outs"] for options in out.values())


def test_resources_of_profile_and_arm_stand_in_meta(root):
    edit(root, "params/toy-0/paper.yaml", "{minutes: 1", "{resources: {gpus: 0.5, memory: 4}, minutes: 1")
    edit(root, "params/toy-0/paper.yaml", "says: the median,", "says: the median, resources: {cpus: 2},")
    sync(root)
    found = stages(root, "params/toy-0/dvc.yaml")
    assert found["plain-train-mean-s0"]["meta"] == {"cpus": 1, "gpus": 0.5, "memory": 4}
    assert found["plain-evaluate-median-s1"]["meta"] == {"cpus": 2, "gpus": 0.5, "memory": 4}
    assert found["plain-judge"]["meta"] == {"cpus": 1}


INDEX = """
import json
from dvc.repo import Repo
repo = Repo(".")
graph = repo.index.graph
print(json.dumps({
    stage.addressing: {
        "cmd": stage.cmd, "frozen": stage.frozen,
        "above": sorted(above.addressing for above in graph.successors(stage)),
        "outs": [str(out) for out in stage.outs], "meta": stage.meta,
    }
    for stage in repo.index.stages
}))
"""


def test_dvc_itself_reads_the_same_stages_edges_and_resources(tmp_path):
    root = make_workspace(tmp_path, papers=1, arms=2, seeds=1, bases=2, dvc=True)
    sync(root)
    read = yaml.safe_load(command(root, sys.executable, "-c", INDEX).stdout)
    planned = list(all_stages(Workspace.load(root)))
    assert sorted(read) == sorted(stage.address for stage in planned)
    by_output = {stage.output: stage.address for stage in planned}
    for stage in planned:
        entry = read[stage.address]
        assert entry["cmd"] == stage_command(stage)
        assert entry["frozen"] == (stage.kind == "base")
        if stage.kind == "code":
            continue
        # Reading its digests makes every stage wait for the stage `code`, so that plain `dvc repro` sees edited code.
        assert set(entry["above"]) == {by_output[path] for path in stage.inputs.values()} | {"code"}
        assert entry["meta"] == dict(stage.resources)
