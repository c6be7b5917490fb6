"""Numbers are marked as soon as code, parameters or stage outputs are no longer theirs."""

import pytest
import yaml

from flows.ledger.staleness import staleness

MD5 = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture
def locked(tmp_path):
    """A paper with one evaluation that was run with digest "aa" and two steps."""
    folder = tmp_path / "params" / "toy-paper"
    folder.mkdir(parents=True)
    unit = "shapes-evaluate-method"
    params = {f"{unit}.code": "aa", f"{unit}.params": {"steps": 2, "rate": 0.1, "kept": [1, 2]}}
    judge = {"shapes-judge.code": "bb"}
    stages = {
        f"{unit}-s0": {
            "params": {"params/toy-paper/digests.json": params},
            "outs": [{"path": "runs/x", "hash": "md5", "md5": MD5}],
        },
        "shapes-judge": {"params": {"params/toy-paper/digests.json": judge}, "outs": []},
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    write_digests(folder)
    return tmp_path


def write_digests(folder, code="aa", steps=2, judge="bb"):
    digests = {
        "shapes-evaluate-method": {"code": code, "params": {"steps": steps, "rate": 0.1, "kept": [1, 2]}},
        "shapes-judge": {"code": judge},
    }
    (folder / "digests.json").write_text(yaml.safe_dump(digests))


def record(md5=MD5, profile="small"):
    stages = {"shapes-evaluate-method-s0": md5}
    return {"paper": "toy-paper", "variant": "shapes", "profile": profile, "stages": stages}


def test_a_record_whose_digests_and_outputs_match_the_lock_is_current(locked):
    assert staleness(locked, record()).state == "current"


@pytest.mark.parametrize(
    "change, stage",
    [
        ({"code": "cc"}, "shapes-evaluate-method-s0"),
        ({"steps": 3}, "shapes-evaluate-method-s0"),
        ({"judge": "cc"}, "shapes-judge"),
    ],
)
def test_changed_code_or_parameters_make_the_record_stale_and_name_the_stage(locked, change, stage):
    write_digests(locked / "params" / "toy-paper", **change)
    age = staleness(locked, record())
    assert (age.state, age.stages) == ("stale", (stage,))


def test_a_stage_without_digests_any_more_is_stale(locked):
    (locked / "params" / "toy-paper" / "digests.json").unlink()
    assert staleness(locked, record()).state == "stale"


def test_other_stage_outputs_than_the_lock_holds_are_not_locked(locked):
    age = staleness(locked, record(md5="f" * 32 + ".dir"))
    assert (age.state, age.stages) == ("not locked", ("shapes-evaluate-method-s0",))


def test_without_a_lock_nothing_ties_the_numbers_to_their_stages(locked):
    (locked / "params" / "toy-paper" / "dvc.lock").unlink()
    assert staleness(locked, record()).state == "not locked"
    assert staleness(locked, record(profile="full")).says.startswith("params/toy-paper/full/dvc.lock does not exist")
