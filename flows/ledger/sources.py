"""The source files behind a paper's stages, as pages of the ledger: a reader can look at the code of a number."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import keyword
import tokenize
from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from pathlib import Path

from markupsafe import Markup

LOCK = "params/code.lock"


@dataclass(frozen=True)
class Source:
    """One first-party module.

    Attributes:
        module: Its name.
        path: Its file, relative to the checkout.
        says: First line of its docstring.
        lines: Number of lines.
    """

    module: str
    path: str
    says: str
    lines: int


class Sources:
    """Modules by stage, from the lock of code digests, and their files.

    Args:
        root: Workspace root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests = _read_lock(root / LOCK)
        self._known: dict[str, Source | None] = {}

    def reached(self, slug: str, kinds: Collection[str] = ("train", "evaluate")) -> list[Source]:
        """Return the modules that a paper's stages reach, by name; none where nothing is locked.

        Args:
            slug: The paper.
            kinds: Kinds of stages that count.
        """
        path = self._root / "params" / slug / "digests.json"
        try:
            units = json.loads(path.read_bytes())
        except (OSError, ValueError):  # not compiled yet
            return []
        names: set[str] = set()
        for unit, values in units.items():
            if isinstance(values, dict) and any(f"-{kind}" in unit for kind in kinds):
                names |= set(self._digests.get(values.get("code", ""), ()))
        return [source for name in sorted(names) if (source := self.source(name)) is not None]

    def source(self, module: str) -> Source | None:
        """Return a module of this checkout; None where it is not there (any more)."""
        if module not in self._known:
            path = self._root.joinpath(*module.split(".")).with_suffix(".py")
            self._known[module] = _describe(module, path, self._root) if path.is_file() else None
        return self._known[module]

    def text(self, source: Source) -> str:
        """Return the text of a module."""
        return (self._root / source.path).read_text(encoding="utf-8")


def _read_lock(path: Path) -> dict[str, tuple[str, ...]]:
    """Modules of each code digest: `digest <code> <module hash>...` and `module <hash> <name> ...`."""
    if not path.is_file():
        return {}
    digests: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(" ")
        words = rest.split(" ")
        if kind == "digest":
            digests[words[0]] = words[1:]
        elif kind == "module" and len(words) > 1:
            names[words[0]] = words[1]
    return {code: tuple(names[word] for word in words if word in names) for code, words in digests.items()}


def _describe(module: str, path: Path, root: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    try:
        says = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    except SyntaxError:
        says = ""
    return Source(module, path.relative_to(root).as_posix(), says, text.count("\n"))


def fingerprint(text: str) -> str:
    """Return a short hash of a text, so that a page that shows it already is not rendered again."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def highlighted(text: str) -> list[Markup]:
    """Return the lines of Python source as HTML: keywords, strings, comments and definitions are told apart."""
    marks = _marks(text)
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts, position = [], 0
        for start, end, kind in marks.get(number, ()):
            parts.append(escape(line[position:start], quote=False))
            parts.append(f'<span class="{kind}">{escape(line[start:end], quote=False)}</span>')
            position = end
        parts.append(escape(line[position:], quote=False))
        found.append(Markup("".join(parts)))
    return found


def _marks(text: str) -> dict[int, list[tuple[int, int, str]]]:
    """Where something is marked: (from, to, class) by line."""
    lines = text.splitlines()
    marks: dict[int, list[tuple[int, int, str]]] = {}
    before = ""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return {}
    for token in tokens:
        kind = _kind(token, before)
        if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT):
            before = token.string
        if not kind:
            continue
        (first, start), (last, end) = token.start, token.end
        for number in range(first, last + 1):
            left = start if number == first else 0
            right = end if number == last else len(lines[number - 1])
            if right > left:
                marks.setdefault(number, []).append((left, right, kind))
    return marks


def _kind(token: tokenize.TokenInfo, before: str) -> str:
    if token.type == tokenize.COMMENT:
        return "k-comment"
    if token.type == tokenize.STRING:
        return "k-string"
    if token.type == tokenize.NAME:
        if keyword.iskeyword(token.string):
            return "k-word"
        if before in ("def", "class"):
            return "k-name"
    return ""
