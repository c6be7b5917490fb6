"""What a module's source means: hashes of its syntax that comments, docstrings and formatting do not touch.

The hash is taken over a spelling of the syntax tree that leaves out empty fields, so that Python versions which add
fields agree about the same source.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from components.errors import TesseraError

Kind = Literal["function", "class", "value", "import", "statement"]

_SYMBOL_DIGITS = 8
_MODULE_DIGITS = 16
# Fields that carry no meaning of their own: load or store follows from the place, `kind` is the u of u"text".
_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


class UnreadableModule(TesseraError):
    """A module is no valid Python."""


@dataclass(frozen=True)
class Symbol:
    """One named part of a module.

    Attributes:
        name: "function", "Class" (its bases and decorators), "Class.method", "CONSTANT", "(imports)", or "(module)"
            for statements without a name.
        digest: Hash of its syntax.
        line: 1-based line where it begins.
        kind: "function" (methods too), "class", "value", "import" or "statement".
        decorators: Names of its decorators, without arguments.
    """

    name: str
    digest: str
    line: int
    kind: Kind
    decorators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Syntax:
    """The meaning of one module.

    Attributes:
        digest: Hash of all its statements in their order.
        symbols: Its named parts in the order of the file; parts that share a name are hashed together.
    """

    digest: str
    symbols: tuple[Symbol, ...]


def read_syntax(source: bytes, path: str = "<source>") -> Syntax:
    """Return the hashes of a module and of its parts.

    Args:
        source: Bytes of the module.
        path: Where it came from, for messages.

    Raises:
        UnreadableModule: The source is no valid Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UnreadableModule(f"{path}{line}: no valid Python ({error}); correct it.") from None
    parts = list(_parts(tree))
    by_name: dict[str, list[_Part]] = {}
    for part in parts:
        by_name.setdefault(part.name, []).append(part)
    found = (
        Symbol(
            name,
            _hash("\n".join(part.text for part in same), _SYMBOL_DIGITS),
            same[0].node.lineno,
            same[0].kind,
            tuple(_decorators(same[0].node)),
        )
        for name, same in by_name.items()
    )
    return Syntax(_hash("\n".join(f"{part.name} {part.text}" for part in parts), _MODULE_DIGITS), tuple(found))


class _Part(NamedTuple):
    name: str
    node: ast.stmt
    text: str
    kind: Kind


def _parts(tree: ast.Module) -> Iterator[_Part]:
    for statement in _statements(tree.body):
        if not isinstance(statement, ast.ClassDef):
            yield _part(statement)
            continue
        yield _Part(statement.name, statement, _spell(statement, without="body"), "class")
        for inner in _statements(statement.body):
            part = _part(inner)
            named = not part.name.startswith("(")
            yield part._replace(name=f"{statement.name}.{part.name}" if named else statement.name)


def _part(statement: ast.stmt) -> _Part:
    text = _spell(statement)
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return _Part(statement.name, statement, text, "function")
    if isinstance(statement, ast.ClassDef):
        return _Part(statement.name, statement, text, "class")
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return _Part("(imports)", statement, text, "import")
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        return _Part(", ".join(names) or "(module)", statement, text, "value")
    return _Part("(module)", statement, text, "statement")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that have an effect: no docstrings, no `pass`, nothing that only type checkers see."""
    for statement in body:
        if isinstance(statement, ast.Pass):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            if isinstance(statement.value.value, str):
                continue
        elif isinstance(statement, ast.If) and _is_type_checking(statement.test):
            yield from _statements(statement.orelse)
            continue
        yield statement


def _is_type_checking(test: ast.expr) -> bool:
    name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
    return name == "TYPE_CHECKING"


def _spell(node: object, without: str = "") -> str:
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in _SILENT or name == without:
                continue
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                value = list(_statements(value))
            if value is None and not isinstance(node, ast.Constant):
                continue
            if value != []:
                fields.append(f"{name}={_spell(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return "[" + ",".join(_spell(item) for item in node) + "]"
    return repr(node)


def _decorators(node: ast.AST) -> Iterator[str]:
    for decorator in getattr(node, "decorator_list", ()):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
