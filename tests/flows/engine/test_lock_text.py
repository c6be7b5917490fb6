"""Locks that are joined from entries are, byte for byte, those that DVC would write whole."""

import pytest
from dvc.utils.serialize import dumps_yaml, load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.engine.lock_text import lock_text, spelled

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
