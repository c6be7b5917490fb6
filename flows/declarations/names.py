"""What a declaration may be called, and what it may not hold: names become folders, and everyone reads the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flows.declarations.document import Document, Location, dotted
from flows.declarations.problems import Problem

# Data sets and bases are folders, below data/ and bases/, and stages of the same name: no slash, no leading dot, no
# space, nothing that a shell or a glob would read otherwise.
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_LONGEST = 80
_CREDENTIALS = re.compile(r"\b[\w+.-]+://[^\s/?#@]+:[^\s/?#@]*@")


def unusable_names(document: Document) -> Iterator[Problem]:
    """Yield a problem for every top-level name that cannot be the name of a folder and of a stage."""
    for name in document.data:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST:
            shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
            words = (
                f"{shown!r} is no valid name here; expected lower-case letters and digits, joined by single '-', '_' "
                f"or '.', at most {_LONGEST} characters: it is the name of a folder."
            )
            yield Problem(document.path, document.line((name,)), shown, words)


def credentials(document: Document) -> Iterator[Problem]:
    """Yield a problem for every address that holds a user and a password."""
    for location, text in _texts(document.data, ()):
        if "://" in text and "@" in text and _CREDENTIALS.search(text):
            words = (
                "an address holds a user and password, and this file is for everyone to read; remove them, and give "
                "them in the environment (docs/cluster.md)."
            )
            yield Problem(document.path, document.line(location), dotted(location), words)


def _texts(value: Any, location: Location) -> Iterator[tuple[Location, str]]:
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*location, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*location, index))
