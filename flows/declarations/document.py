"""YAML files read with line numbers, strictly and fast.

YAML's older rules hold traps that a declaration must not fall into: `no` is an arm's name and not a boolean, `1e-3`
is a number and not text, a key given twice is a mistake and not an override. Scalars follow YAML 1.2; duplicate keys,
aliases and language-specific tags are refused; every value knows its line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import yaml

from flows.declarations.problems import DeclarationError, Problem

Location = tuple[str | int, ...]

# Part of the cache key: raise it whenever the same bytes should be read differently.
_READER_VERSION = "1"

_TAG = "tag:yaml.org,2002:"
_SCALARS = [
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Composes nodes with the scalar rules of YAML 1.2; constructs nothing."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own class attribute


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


class Document:
    """One YAML file: its plain data and the line of every value.

    Attributes:
        path: Path as messages show it, relative to the workspace.
        data: Nested dicts, lists and scalars; the top is always a mapping.
        digest: Hash of the file's bytes.
    """

    def __init__(self, path: str, data: dict[str, Any], digest: str, source: bytes, lines: dict[Location, int] | None):
        self.path = path
        self.data = data
        self.digest = digest
        self._source = source
        self._lines = lines

    def line(self, location: Location) -> int:
        """Return the 1-based line of a value's key, or of its nearest enclosing value when it is absent."""
        if self._lines is None:
            self._lines = _Reader(self.path, self._source).read()[1]
        return self._lines[self.nearest(location)]

    def nearest(self, location: Location) -> Location:
        """Return the longest prefix of a location that stands in the file."""
        node: Any = self.data
        for depth, step in enumerate(location):
            inside = (isinstance(node, dict) and step in node) or (
                isinstance(node, list) and isinstance(step, int) and step < len(node)
            )
            if not inside:
                return location[:depth]
            node = node[step]
        return location


def read_document(root: Path, path: str, expected: str) -> Document:
    """Read `root / path`, from the parse cache in `.tessera/` when its bytes were read before.

    Args:
        root: Workspace root.
        path: Path of the file relative to the root, as messages show it.
        expected: What the file should hold, for the message when it is empty ("a paper's declaration").

    Raises:
        DeclarationError: The file is missing, empty, not UTF-8, not YAML, or has duplicate keys, anchors or tags.
    """
    try:
        source = (root / path).read_bytes()
    except FileNotFoundError:
        raise DeclarationError([Problem(path, None, "", f"the file is missing; expected {expected}.")]) from None
    except (IsADirectoryError, PermissionError) as error:
        raise DeclarationError([Problem(path, None, "", f"cannot be read ({error.strerror}).")]) from error
    digest = hashlib.sha256(_READER_VERSION.encode() + source).hexdigest()
    cached = root / ".tessera" / "parsed" / (hashlib.sha256(path.encode()).hexdigest()[:24] + ".json")
    data = _from_cache(cached, digest)
    if data is not None:
        return Document(path, data, digest, source, None)
    data, lines = _Reader(path, source).read(expected)
    _to_cache(cached, digest, data)
    return Document(path, data, digest, source, lines)


def parse_document(source: bytes, path: str, expected: str) -> dict[str, Any]:
    """Return the data of a file that stands elsewhere than in the checkout, such as in an earlier commit.

    Args:
        source: The file's bytes.
        path: Path of the file, as messages show it.
        expected: What the file should hold, for the message when it is empty.

    Raises:
        DeclarationError: The bytes are empty, not UTF-8, not YAML, or have duplicate keys, anchors or tags.
    """
    return _Reader(path, source).read(expected)[0]


def _from_cache(cached: Path, digest: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(cached.read_bytes())
        return entry["data"] if entry["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):  # a damaged cache entry is only a miss
        return None


def _to_cache(cached: Path, digest: str, data: dict[str, Any]) -> None:
    # Not flushed to disk: a damaged entry is only a miss, and a read-only workspace is read all the same.
    temporary = cached.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"digest": digest, "data": data}, separators=(",", ":")), encoding="utf-8")
        os.replace(temporary, cached)


class _Reader:
    """Turns bytes into plain data and lines, collecting every problem of the file."""

    def __init__(self, path: str, source: bytes):
        self._path = path
        self._source = source
        self._problems: list[Problem] = []
        self._lines: dict[Location, int] = {}
        self._seen: set[int] = set()

    def read(self, expected: str = "a mapping") -> tuple[dict[str, Any], dict[Location, int]]:
        node = self._compose()
        if node is None:
            raise self._failure(1, f"the file is empty; expected {expected}.")
        self._lines[()] = node.start_mark.line + 1
        try:
            data = self._value(node, ())
        except RecursionError:
            raise self._failure(None, "not readable as YAML: nested too deeply.") from None
        if not isinstance(data, dict):
            self._report(node, (), f"expected a mapping of keys to values, got {describe(data)}.")
        if self._problems:
            raise DeclarationError(self._problems)
        return data, self._lines

    def _compose(self) -> yaml.Node | None:
        try:
            text = self._source.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self._source.count(b"\n", 0, error.start) + 1
            raise self._failure(line, f"byte {error.start} is not UTF-8; save the file as UTF-8.") from None
        loader = None
        try:
            loader = _Loader(text)
            return loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else None
            words = ", ".join(word for word in (error.context, error.problem) if word)
            raise self._failure(line, f"not readable as YAML: {words}.") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            words = f"not readable as YAML: a control character (code {error.character})."
            raise self._failure(line, words) from None
        except RecursionError:  # PyYAML without its C library, which has a limit of its own
            raise self._failure(None, "not readable as YAML: nested too deeply.") from None
        finally:
            if loader is not None:
                loader.dispose()

    def _failure(self, line: int | None, message: str) -> DeclarationError:
        return DeclarationError([Problem(self._path, line, "", message)])

    def _value(self, node: yaml.Node, location: Location) -> Any:
        if id(node) in self._seen:
            # An alias gives the node of its anchor, whose line is another one.
            words = "an alias (*name) is not supported; write the value out."
            self._problems.append(Problem(self._path, self._lines[location], dotted(location), words))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, location)
        return self._scalar(node, location)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        self._check_tag(node, "map", location)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, location, "a key is a list or mapping; expected text.")
                continue
            key = key_node.value
            if key in values:
                first = self._lines[(*location, key)]
                self._report(key_node, (*location, key), f"the key stands twice (first on line {first}); remove one.")
                continue
            self._lines[(*location, key)] = line
            values[key] = self._value(value_node, (*location, key))
        return values

    def _sequence(self, node: yaml.SequenceNode, location: Location) -> list[Any]:
        self._check_tag(node, "seq", location)
        values = []
        for index, item in enumerate(node.value):
            self._lines[(*location, index)] = item.start_mark.line + 1
            values.append(self._value(item, (*location, index)))
        return values

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return node.value
        if kind == "bool":
            return node.value.lower() == "true"
        if kind == "null":
            return None
        try:
            if kind == "int":
                return int(node.value)
            if kind == "float":
                return float(node.value.replace(".inf", "inf").replace(".Inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._report(node, location, f"{node.value!r} is no number.")
            return None
        self._check_tag(node, "str", location)
        return None

    def _check_tag(self, node: yaml.Node, kind: str, location: Location) -> None:
        if node.tag != _TAG + kind:
            self._report(
                node, location, f"the tag {node.tag.replace(_TAG, '!!')!r} is not supported; write a plain value."
            )

    def _report(self, node: yaml.Node, location: Location, message: str) -> None:
        self._problems.append(Problem(self._path, node.start_mark.line + 1, dotted(location), message))


def dotted(location: Location) -> str:
    """Spell a location for a message: `("claims", 0, "tests", 1, "arm")` becomes `claims[0].tests[1].arm`."""
    words = ""
    for step in location:
        words += f"[{step}]" if isinstance(step, int) else f".{step}" if words else str(step)
    return words


def describe(value: Any) -> str:
    """Say what a YAML value is, for messages: `the text 'abc'`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)
