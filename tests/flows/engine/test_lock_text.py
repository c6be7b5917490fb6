"""Locks that are joined from entries are, byte for byte, those that DVC would write whole."""

import json
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.engine.lock_text import lock_text, read_lock, spelled

ROOT = Path(__file__).parents[3]

NAMES = st.text("abcd-", min_size=1)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=90)
ENTRIES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
STAGES = st.dictionaries(NAMES, st.dictionaries(NAMES, ENTRIES, min_size=1), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(STAGES)
def test_a_lock_of_entries_is_the_lock_that_dvc_writes_whole(stages):
    assert lock_text(spelled(*stage) for stage in stages.items()) == dumps_yaml({"schema": "2.0", "stages": stages})


@pytest.mark.parametrize("command", ["python -m flows.stage train " + "a-long-word " * 12, "short"])
def test_long_commands_are_folded_as_dvc_folds_them_and_read_back_whole(command, tmp_path):
    stages = {"one": {"cmd": command, "params": {"x": None}}}
    path = tmp_path / "dvc.lock"
    path.write_text(lock_text(spelled(*stage) for stage in stages.items()))
    assert load_yaml(path) == {"schema": "2.0", "stages": stages}


@pytest.mark.parametrize("value", [5e-05, 1e-6, 1e20, 0.1, "5e-05", "yes", "0o7", True])
def test_a_lock_that_is_read_and_written_again_is_the_same(value, tmp_path):
    path = tmp_path / "dvc.lock"
    text = dumps_yaml(
        {"schema": "2.0", "stages": {"one": {"cmd": "x", "params": {"p": {"x.params": {"rate": value}}}}}}
    )
    path.write_text(text)
    stages = read_lock(path)["stages"]
    assert stages["one"]["params"]["p"]["x.params"]["rate"] == value
    assert lock_text(spelled(*stage) for stage in stages.items()) == text


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*/dvc.lock")), ids=lambda path: path.parent.name)
def test_the_locks_of_the_papers_have_the_parameters_that_their_code_digests_stand_beside(path):
    units = json.loads((path.parent / "digests.json").read_text())
    for name, stage in read_lock(path)["stages"].items():
        for values in stage.get("params", {}).values():
            recorded: dict = {}
            for key, value in values.items():
                unit, _, what = key.rpartition(".")
                recorded.setdefault(unit, {})[what] = value
            for unit, found in recorded.items():
                if "params" in found and unit in units and found.get("code") == units[unit].get("code"):
                    assert found["params"] == units[unit]["params"], (name, unit)
