"""What `tessera why` says, against edits whose effect is known."""

from __future__ import annotations

import json

import pytest
from workspace import edit, make_workspace, run_in, write

from flows.engine.compile import sync
from flows.engine.why import UnknownStage, find_stage

# Outputs are made by hand and committed by DVC itself, so that the lock is DVC's own; then edits are made one by one.
SCRIPT = """
import json
from pathlib import Path
from dvc.repo import Repo
from flows.declarations.workspace import Workspace
from flows.engine.compile import all_stages
from flows.engine.digests import write_digests
from flows.engine.why import why

def make(spec, text):
    Path(spec.output).mkdir(parents=True, exist_ok=True)
    Path(spec.output, "metrics.json").write_text(text)

never = why(".", "toy-0:plain-train-mean-s0")
stages = [stage for stage in all_stages(Workspace.load(".")) if stage.kind != "code"]
for stage in stages:
    make(stage, stage.name)
write_digests(".")
with Repo(".") as repo:
    repo.commit(force=True, recursive=True, target="params")
    for name in ("base-constant-0", "base-constant-1"):
        repo.commit(name, force=True)
said = {"never": never, "clean": {stage.name: why(".", stage.address) for stage in stages}}
for name, stage, steps in json.loads(Path("cases.json").read_text()):
    before = {}
    for file, old, new in steps:
        before.setdefault(file, Path(file).read_text() if Path(file).is_file() else None)
        if old is None:
            Path(file).write_text(new)
        elif new is None:
            Path(file).unlink()
        else:
            assert old in before[file], (name, old)
            Path(file).write_text(Path(file).read_text().replace(old, new))
    said[name] = why(".", stage)
    for file, text in before.items():
        Path(file).unlink() if text is None else Path(file).write_text(text)
print(json.dumps(said))
"""

MEAN = "flows/studies/toy/rules/mean.py"
NUMBERS = "flows/studies/toy/numbers.py"
PAPER = "params/toy-0/paper.yaml"
LOCK = "params/toy-0/dvc.lock"
RUN = "runs/toy-0/plain/train/mean/s0/run/metrics.json"
TRAIN, EVALUATE, JUDGE = "toy-0:plain-train-mean-s0", "toy-0:plain-evaluate-mean-s0", "toy-0:plain-judge"
CASES = [
    ("comment", EVALUATE, [(MEAN, "    return", "    # a remark\n    return")]),
    ("changed function", EVALUATE, [(MEAN, "return sum(numbers)", "return 0 + sum(numbers)")]),
    ("added function", EVALUATE, [(MEAN, "def estimate", "def more():\n    return 1\n\n\ndef estimate")]),
    ("renamed function", TRAIN, [(NUMBERS, "def draw", "def drawn")]),
    (
        "added import",
        EVALUATE,
        [(MEAN, "\n\ndef estimate", "\nimport flows.studies.toy.rules.median\n\n\ndef estimate")],
    ),
    ("code of another arm", EVALUATE, [("flows/studies/toy/rules/median.py", "median(", "median_low(")]),
    ("parameter", TRAIN, [(PAPER, "small: {minutes: 1}", "small: {minutes: 1, steps: 21}")]),
    ("condition", EVALUATE, [(PAPER, "small: {minutes: 1}", "small: {minutes: 1, grid: [1]}")]),
    ("claim", JUDGE, [(PAPER, "below: 3}", "below: 2}")]),
    ("output", TRAIN, [(RUN, None, "tampered")]),
    ("missing output", TRAIN, [(RUN, "", None)]),
    ("input", EVALUATE, [(RUN, None, "tampered")]),
    ("upstream", JUDGE, [(NUMBERS, "0.0, spread", "0.5, spread")]),
    ("command", TRAIN, [(LOCK, "train toy-0 plain mean 0", "train toy-0 plain mean zero")]),
    ("base", TRAIN, [("bases/constant-1/metrics.json", None, "retrained")]),
    ("base parameter", "base-constant-1", [("params/bases.yaml", "value: 2.0", "value: 5.0")]),
    ("no record", EVALUATE, [("params/code.lock", None, ""), (MEAN, "return sum(numbers)", "return 0 + sum(numbers)")]),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    root = make_workspace(tmp_path_factory.mktemp("why"), papers=1, seeds=1, bases=2, code=True, dvc=True)
    sync(root)
    write(root, "cases.json", json.dumps(CASES))
    return json.loads(run_in(root, SCRIPT).splitlines()[-1])


def test_a_stage_that_never_ran_says_so_and_names_what_must_run_first(said):
    assert said["never"][0] == "never run: dvc.lock has no record of it"


def test_nothing_is_said_to_have_changed_where_nothing_did(said):
    assert set(map(tuple, said["clean"].values())) == {("nothing changed",)}
    assert said["comment"] == said["code of another arm"] == ["nothing changed"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("changed function", [f"code: {MEAN}:6: estimate changed"]),
        ("added function", [f"code: {MEAN}:6: more added"]),
        ("renamed function", [f"code: {NUMBERS}:8: drawn added", f"code: {NUMBERS}: draw removed"]),
        ("parameter", ["parameter steps: 20 -> 21"]),
        ("condition", ["parameter grid: [1, 2, 4] -> [1]"]),
        ("command", ["command: python -m flows.stage train toy-0 plain mean zero -> "
                     "python -m flows.stage train toy-0 plain mean 0"]),
        ("base parameter", ["parameter value: 2.0 -> 5.0",
                            "a base is not retrained by itself; tessera rebuild-base constant-1 does it"]),
    ],
)  # fmt: skip
def test_a_change_is_named_down_to_the_symbol_or_the_value(said, name, expected):
    assert said[name] == expected


def test_a_module_that_is_newly_reached_is_named_beside_the_import_that_reaches_it(said):
    assert said["added import"] == [
        f"code: {MEAN}:3: (imports) changed",
        "code: flows/studies/toy/rules/median.py: newly reached by this stage",
    ]


def test_a_changed_claim_is_named(said):
    (line,) = said["claim"]
    assert line.startswith("parameter claims.mean-is-close: ")


def test_changed_files_show_their_old_and_new_hash(said):
    for name, role in (("output", "output"), ("input", "input")):
        line = said[name][0]
        path, _, hashes = line.removeprefix(f"{role} ").partition(": ")
        before, _, after = hashes.partition(" -> ")
        assert path == "runs/toy-0/plain/train/mean/s0/run"
        assert before != after
        assert before.endswith(".dir")
        assert after.endswith(".dir")
    assert said["missing output"][0].startswith("output runs/toy-0/plain/train/mean/s0/run")
    assert said["base"][0].startswith("input bases/constant-1: ")


def test_a_stage_whose_own_inputs_are_stale_names_the_stages_above(said):
    assert [line.split(";")[0] for line in said["upstream"]] == [
        f"upstream: toy-0:plain-{kind}-{arm}-s0 changed" for kind in ("evaluate", "train") for arm in ("mean", "median")
    ]


def test_without_a_record_the_change_is_still_reported(said):
    (line,) = said["no record"]
    assert "what the old one stood for is not in params/code.lock" in line


@pytest.fixture
def workspace(tmp_path):
    root = make_workspace(tmp_path, papers=2, bases=1)
    edit(root, "params/toy-1/paper.yaml", "  plain: {", "  other: {")
    sync(root)
    return root


@pytest.mark.parametrize(
    "address, name",
    [
        ("toy-0:plain-judge", "params/toy-0/dvc.yaml:plain-judge"),
        ("params/toy-0/dvc.yaml:plain-judge", "params/toy-0/dvc.yaml:plain-judge"),
        ("params/toy-0:plain-judge", "params/toy-0/dvc.yaml:plain-judge"),
        ("plain-judge", "params/toy-0/dvc.yaml:plain-judge"),
        ("1:train-median-s2", "params/toy-1/dvc.yaml:other-train-median-s2"),
        ("base-constant-0", "base-constant-0"),
        ("constant", "base-constant-0"),
        ("code", "code"),
    ],
)
def test_a_stage_is_found_by_its_address_or_any_part_that_only_it_has(workspace, address, name):
    assert find_stage(workspace, address).address == name


def test_what_fits_no_stage_or_several_is_refused_with_names(workspace):
    with pytest.raises(
        UnknownStage, match=r"'judge' fits 2 stages; name one of toy-0:plain-judge, toy-1:other-judge\."
    ):
        find_stage(workspace, "judge")
    with pytest.raises(UnknownStage, match=r"is no stage.* Did you mean 'toy-0:plain-train-median-s1'\?"):
        find_stage(workspace, "toy-0:plain-train-medan-s1")


def test_a_full_stage_is_told_from_the_small_one(workspace):
    sync(workspace, profile="full", papers=["toy-0"])
    assert find_stage(workspace, "toy-0:plain-judge").profile == "small"
    assert find_stage(workspace, "toy-0/full:plain-judge").profile == "full"
    assert find_stage(workspace, "params/toy-0/full/dvc.yaml:plain-judge").profile == "full"
