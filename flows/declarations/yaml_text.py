"""YAML that a person can read and two runs write alike: block mappings, flow lists of scalars, minimal quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# Words that some YAML version reads as something other than text are quoted.
_PLAIN = re.compile(
    r"(?!(?:true|false|yes|no|on|off|null|y|n|inf|nan)$)[A-Za-z_][\w./=-]*(?: [\w./=()-]+)*", re.IGNORECASE
)
_WIDTH = 110


def yaml_text(value: Mapping[str, Any], header: str = "") -> str:
    """Return a mapping as a YAML document.

    Args:
        value: Nested mappings with text keys, lists and scalars.
        header: Comment put above it, without the "# ".

    Returns:
        Text that YAML 1.1 and 1.2 readers load back to the same value.
    """
    lines = [f"# {line}" for line in header.splitlines()]
    if value:
        _mapping(value, "", lines)
    else:
        lines.append("{}")
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for key, item in value.items():
        _entry(f"{indent}{scalar(key)}:", item, indent, lines)


def _entry(start: str, item: Any, indent: str, lines: list[str]) -> None:
    if isinstance(item, Mapping) and item:
        lines.append(start)
        _mapping(item, indent + "  ", lines)
    elif isinstance(item, list | tuple) and item:
        line = f"{start} {flow(item)}"
        if len(line) <= _WIDTH and not any(isinstance(entry, Mapping) for entry in item):
            lines.append(line)
            return
        lines.append(start)
        for entry in item:
            _item(entry, indent, lines)
    else:
        lines.append(f"{start} {flow(item)}")


def _item(entry: Any, indent: str, lines: list[str]) -> None:
    if not (isinstance(entry, Mapping) and entry):
        lines.append(f"{indent}- {flow(entry)}")
        return
    inner: list[str] = []
    _mapping(entry, indent + "  ", inner)
    lines.append(f"{indent}- {inner[0].lstrip()}")
    lines += inner[1:]


def flow(value: Any) -> str:
    """Spell a value on one line, mappings and lists in braces and brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """Spell a scalar: text without quotes where every YAML reader takes it for text."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.isascii() else _quoted(value)
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes 1e-05 for text; a point makes it a number everywhere.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


def _quoted(text: str) -> str:
    """Quote a text; JSON's quotes are YAML's, except that YAML reads raw line separators and the like otherwise."""
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
