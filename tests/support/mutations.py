"""Faulty files made from sound ones, for fuzzing: text torn and mistyped, values swapped, bytes flipped."""

from __future__ import annotations

import contextlib
import copy
import functools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

SECONDS = 30
"""After which an example counts as hanging; each takes milliseconds on a quiet machine."""

ODD_VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf"), "", " ", "..", "../../outside",
    "/etc/passwd", "a/b", "a\\b", "~", "$HOME", "${HOME}", "{{ 1 }}", "x" * 5000, "é\u202e\u200b", "\x07", "\ud7ff",
    "*", "? ", "!!python/object/apply:os.system [id]", "k=1,l=2", "=", ",", "-", "no", "1e-3", "2026-02-30", [], {},
    [[]], [None], {"": ""}, {"a": {"b": {"c": []}}}, [0] * 50, ["mean"], {"above": 1}, {1: 2}, "toy-0", "mean", "smoke",
]  # fmt: skip
ODD_TEXTS = [
    "\t", "\0", ": ", "- ", "{", "}", "[", "]", "&a ", "*a", "!!python/name:os.system ", "!x ", "<<: ", "|", ">",
    "%YAML 9", "---\n", "...\n", "#", "'", '"', "\n", "\r", "\u2028", "\ufeff", "9" * 400, "../", "é", "? ", "@", "`",
    ",", "=", "\\",
]  # fmt: skip
_PLACES = st.floats(0, 1, exclude_max=True)


@contextlib.contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Fail where an example does not come to an end."""

    def hangs(number: int, frame: object) -> None:
        raise AssertionError(f"did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def paths_of(value: Any, above: tuple = ()) -> list[tuple]:
    """Every place inside nested mappings and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in pairs for path in ((*above, key), *paths_of(inner, (*above, key)))]


def _change(data: Any, place: float, kind: str, odd: Any, depth: int) -> None:
    paths = [path for path in paths_of(data) if len(path) <= depth]
    if not paths:
        return
    *above, key = paths[int(place * len(paths))]
    parent = data
    for step in above:
        parent = parent[step]
    if kind == "replace":
        parent[key] = copy.deepcopy(odd)
    elif kind == "remove":
        del parent[key]
    elif kind == "wrap":
        parent[key] = [parent[key]]
    elif kind == "repeat" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == "swap":
        *others, other = paths[int((place * 7919) % 1 * len(paths))]
        source = data
        for step in (*others, other):
            source = source[step]
        parent[key] = copy.deepcopy(source)
    elif isinstance(parent, dict):
        new = odd if isinstance(odd, str) else str(odd)[:40]
        parent[new] = parent.pop(key)


@st.composite
def mutated_data(draw: st.DrawFn, sound: Any) -> Any:
    """Nested data of which one to three values were replaced, removed, wrapped, repeated, swapped or renamed."""
    data = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["replace", "remove", "rename", "wrap", "repeat", "swap"]))
        depth = draw(st.sampled_from([1, 2, 99, 99]))
        _change(data, draw(_PLACES), kind, draw(st.sampled_from(ODD_VALUES)), depth)
    return data


@functools.cache
def _data_of(text: str) -> Any:
    return yaml.safe_load(text)


@st.composite
def mutated_text(draw: st.DrawFn, sound: str) -> bytes:
    """A YAML text that was changed as data, or torn and mistyped as text."""
    if draw(st.booleans()):
        changed = draw(mutated_data(_data_of(sound)))
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        return yaml.dump(changed, Dumper=dumper, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    lines = sound.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        place = int(draw(_PLACES) * len(lines))
        kind = draw(st.sampled_from(["insert", "drop", "double", "indent", "cut", "type"]))
        if kind == "drop":
            lines[place] = ""
        elif kind == "double":
            lines[place] *= 2
        elif kind == "indent":
            lines[place] = draw(st.sampled_from(["  ", " ", "\t"])) + lines[place]
        elif kind == "cut":
            del lines[place + 1 :]
        else:
            at = int(draw(_PLACES) * len(lines[place]))
            end = at if kind == "insert" else at + draw(st.integers(1, 8))
            lines[place] = lines[place][:at] + draw(st.sampled_from(ODD_TEXTS)) + lines[place][end:]
        if not lines:
            break
    return "".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def mutated_bytes(draw: st.DrawFn, sound: bytes) -> bytes:
    """A binary file with flipped, cut, repeated or foreign bytes; most changes lie in its last part, the footer."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        late = draw(st.booleans())
        share = draw(_PLACES)
        at = int((0.7 + 0.3 * share if late else share) * len(data))
        kind = draw(st.sampled_from(["flip", "cut", "remove", "insert", "fill"]))
        if kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=32))
        else:
            data[at : at + 8] = draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"PAR1" * 2, b"\x80" * 8]))
    return bytes(data)


def snapshot(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size, to see that nothing else was written."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
