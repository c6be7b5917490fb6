"""Reading and writing YAML: strict, with lines, and the same for every reader."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flows.declarations.document import read_document
from flows.declarations.problems import DeclarationError
from flows.declarations.yaml_text import yaml_text


def read(tmp_path, text, name="file.yaml"):
    source = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(source)
    return read_document(tmp_path, name, "something")


def problems(tmp_path, text):
    with pytest.raises(DeclarationError) as raised:
        read(tmp_path, text)
    assert raised.value.exit_code == 2
    return [str(problem) for problem in raised.value.problems]


def test_every_value_knows_its_line(tmp_path):
    document = read(tmp_path, "a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n# note\n'e': |\n  text\n  text\nf: 0\n")
    assert document.data == {"a": 1, "b": ["x", {"c": 2, "d": 3}], "e": "text\ntext\n", "f": 0}
    expected = {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "d"): 5,
        ("e",): 7,
        ("f",): 10,
    }
    assert {location: document.line(location) for location in expected} == expected


def test_the_line_of_an_absent_value_is_that_of_what_should_hold_it(tmp_path):
    document = read(tmp_path, "a:\n  b:\n    c: 1\n")
    assert document.line(("a", "b", "missing")) == 2
    assert document.line(("missing", "x")) == 1


def test_scalars_that_older_yaml_misreads_are_read_as_they_look(tmp_path):
    data = read(tmp_path, "no: on\nyes: 1e-3\ntime: 12:30\ndate: 2026-11-25\nn: 0.5\nbig: 124e6\noctal: 017\n").data
    assert data == {
        "no": "on", "yes": 1e-3, "time": "12:30", "date": "2026-11-25", "n": 0.5, "big": 124e6, "octal": 17,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("", 1, "the file is empty; expected something"),
        ("# only a comment\n", 1, "the file is empty"),
        ("- a\n- b\n", 1, "expected a mapping of keys to values, got a list"),
        ("a: 1\nb: 2\na: 3\n", 3, "a: the key stands twice (first on line 1)"),
        ("x:\n  a: {k: 1, k: 2}\n", 2, "x.a.k: the key stands twice"),
        ("a: [1, 2\nb: 3\n", 2, "not readable as YAML"),
        ("a: b: c\n", 1, "not readable as YAML"),
        ("a:\n\tb: 1\n", 2, "not readable as YAML"),
        ("a: 1\n--- \nb: 2\n", 2, "not readable as YAML"),
        ("a: &x {b: 1}\nc: *x\n", 2, "c: an alias (*name) is not supported"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "a: the tag '!!python/object/apply:os.system'"),
        ("a: !custom 3\n", 1, "a: the tag '!custom' is not supported"),
        ("a: 1\n? [x]\n: 2\n", 2, "a key is a list or mapping; expected text"),
        (b"a: 1\nb: \xff\n", 2, "is not UTF-8"),
        ("a: 1\nb: \x07\n", 2, "a control character"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, text, line, words):
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"file.yaml:{line}: ")
    assert words in problem


def test_every_fault_of_a_file_is_reported_at_once(tmp_path):
    found = problems(tmp_path, "a: 1\na: 2\nb: !x 3\nc: {d: 1, d: 1}\n")
    assert [problem.split(": ")[0] for problem in found] == ["file.yaml:2", "file.yaml:3", "file.yaml:4"]


@pytest.mark.parametrize("depth", [600, 5000])
def test_deep_nesting_ends_in_a_message_and_not_in_a_crash(tmp_path, depth):
    (problem,) = problems(tmp_path, "a: " + "[" * depth + "]" * depth + "\n")
    assert "nest" in problem


def test_a_missing_file_says_what_it_should_hold(tmp_path):
    with pytest.raises(DeclarationError, match=r"gone\.yaml: the file is missing; expected data sets"):
        read_document(tmp_path, "gone.yaml", "data sets")


def test_a_second_reading_comes_from_the_cache_and_knows_the_same_lines(tmp_path, monkeypatch):
    text = "a: {b: 0.1, c: [x, null, true]}\nd: 2\n"
    first = read(tmp_path, text)
    monkeypatch.setattr("flows.declarations.document.yaml", None)
    second = read_document(tmp_path, "file.yaml", "something")
    monkeypatch.undo()
    assert second.data == first.data
    assert second.line(("d",)) == first.line(("d",)) == 2


def test_a_changed_file_and_a_damaged_cache_are_read_anew(tmp_path):
    read(tmp_path, "a: 1\n")
    assert read(tmp_path, "a: 2\n").data == {"a": 2}
    (cached,) = (tmp_path / ".tessera" / "parsed").iterdir()
    for damage in (b"", b"{", b"[1]", b'{"digest": 3}', b"\xff"):
        cached.write_bytes(damage)
        assert read(tmp_path, "a: 2\n").data == {"a": 2}


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn"), exclude_characters="\ufeff"),
        max_size=12,
    )
    | st.sampled_from(
        [
            "no",
            "1e-3",
            "0x1f",
            "~",
            "a: b",
            "- x",
            "#",
            "12:30",
            "2026-11-25",
            "<<",
            "=",
            "a, b",
            "",
            "a\u2028b\U0001f600",
            "a\x85",
            "1_0",
            "{",
            "*a",
        ]
    )
)
keys = st.text(st.sampled_from("abcyn019-_. :#é"), min_size=1, max_size=6)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(keys, values, max_size=4))
def test_written_yaml_is_read_back_alike_by_every_reader(tmp_path_factory, value):
    text = yaml_text(value, "a header")
    folder = tmp_path_factory.getbasetemp()
    assert json.dumps(read(folder, text).data) == json.dumps(value)
    assert yaml.safe_load(text) == value
    assert YAML(typ="safe", pure=True).load(io.StringIO(text)) == value
