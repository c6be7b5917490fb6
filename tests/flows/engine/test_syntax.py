"""Hashes of syntax: blind to cosmetics, sharp for everything else."""

from __future__ import annotations

import ast
import random

import pytest
from workspace import REPOSITORY

from flows.engine.syntax import UnreadableModule, read_syntax

SOURCE = '''\
"""Docstring."""
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

LIMIT: int = 3
a, b = 1, 2
c = d = 4


@decorated(1)
def function(x, y=2):
    """Says something."""
    for i in range(x):
        # a comment
        y += i
    return y


class Thing(Base, metaclass=Meta):
    """A thing."""

    field: int = 1
    """Says what the field is."""

    def method(self):
        return self.field

    @property
    def value(self):
        return 1

    @value.setter
    def value(self, new):
        self.field = new


if os.name == "posix":
    LIMIT = 4
'''


def digest(source):
    return read_syntax(source.encode()).digest


def by_name(source):
    return {symbol.name: symbol.digest for symbol in read_syntax(source.encode()).symbols}


@pytest.mark.parametrize(
    "old, new",
    [
        ('"""Docstring."""\n', ""),
        ('"""Docstring."""', "'''Another,\n\nlonger one.'''"),
        ("        # a comment\n", ""),
        ('    """Says something."""\n', ""),
        ('    """Says what the field is."""\n', ""),
        ('    """A thing."""\n', "    pass\n"),
        ("y=2", "y = 2"),
        ("return y", "return (\n        y\n    )"),
        ('"posix"', "'posix'"),
        ('"posix"', "'po' 'six'"),
        ("LIMIT: int = 3", "LIMIT: int = 0x3"),
        ("    import numpy\n", "    import torch\n"),
        ("\n\n\n", "\n\n"),
        ("    for i", "    pass\n    for i"),
    ],
)
def test_cosmetics_change_nothing(old, new):
    assert old in SOURCE
    assert digest(SOURCE.replace(old, new)) == digest(SOURCE)
    assert by_name(SOURCE.replace(old, new)) == by_name(SOURCE)


@pytest.mark.parametrize(
    "old, new, changed",
    [
        ("range(x)", "range(x + 1)", {"function"}),
        ("y=2", "y=2.0", {"function"}),
        ("y=2", "y=True", {"function"}),
        ("@decorated(1)", "@decorated(2)", {"function"}),
        ("return self.field", "return 1", {"Thing.method"}),
        ("field: int = 1", "field: int = 2", {"Thing.field"}),
        ("field: int", "field: float", {"Thing.field"}),
        ("metaclass=Meta", "metaclass=Other", {"Thing"}),
        ("self.field = new", "self.field = -new", {"Thing.value"}),
        ("LIMIT: int = 3", "LIMIT: int = 5", {"LIMIT"}),
        ("a, b = 1, 2", "a, b = 2, 1", {"(module)"}),
        ("c = d = 4", "c = d = 5", {"c, d"}),
        ('os.name == "posix"', 'os.name != "posix"', {"(module)"}),
        ("import os\n", "import os\nimport sys\n", {"(imports)"}),
        ("import os\n", "import os as os\n", {"(imports)"}),
    ],
)
def test_a_change_of_meaning_is_seen_and_named(old, new, changed):
    assert old in SOURCE
    after = SOURCE.replace(old, new)
    assert digest(after) != digest(SOURCE)
    before, now = by_name(SOURCE), by_name(after)
    assert {name for name in before | now if before.get(name) != now.get(name)} == changed


def test_additions_and_removals_show_as_symbols():
    assert by_name(SOURCE + "\n\ndef new():\n    pass\n").keys() - by_name(SOURCE).keys() == {"new"}


def test_the_order_of_statements_counts():
    assert digest("a = 1\nprint(a)\na = 2\n") != digest("a = 1\na = 2\nprint(a)\n")


def test_a_symbol_knows_its_line_kind_and_decorators():
    symbols = {symbol.name: symbol for symbol in read_syntax(SOURCE.encode()).symbols}
    lines = SOURCE.splitlines()
    assert lines[symbols["Thing.method"].line - 1] == "    def method(self):"
    assert lines[symbols["LIMIT"].line - 1] == "LIMIT: int = 3"
    kinds = {name: symbol.kind for name, symbol in symbols.items()}
    assert kinds == {
        "(imports)": "import", "LIMIT": "value", "(module)": "value", "c, d": "value", "function": "function",
        "Thing": "class", "Thing.field": "value", "Thing.method": "function", "Thing.value": "function",
    }  # fmt: skip
    assert symbols["function"].decorators == ("decorated",)
    assert symbols["Thing.value"].decorators == ("property",)


def test_what_is_no_python_is_refused_with_its_line():
    with pytest.raises(UnreadableModule, match=r"^some\.py:2: no valid Python"):
        read_syntax(b"a = 1\nb = = 2\n", "some.py")


MODULES = sorted(path for package in ("components", "flows") for path in (REPOSITORY / package).rglob("*.py"))


def test_rewriting_a_real_module_without_comments_or_layout_changes_nothing():
    generator = random.Random(0)
    for path in generator.sample(MODULES, 20):
        source = path.read_text(encoding="utf-8")
        # Python's own unparser drops comments and layout and keeps docstrings; a second docstring is added.
        assert digest('"""Added."""\n' + ast.unparse(ast.parse(source))) == digest(source), path


class _Constants(ast.NodeTransformer):
    """Changes the chosen constant of a tree, docstrings left alone."""

    def __init__(self, chosen: int) -> None:
        self.chosen, self.seen = chosen, -1

    def visit_Expr(self, node):
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_JoinedStr(self, node):
        return node

    def visit_Constant(self, node):
        self.seen += 1
        return ast.copy_location(ast.Constant("changed!"), node) if self.seen == self.chosen else node


def test_changing_any_constant_of_a_real_module_changes_its_digest():
    generator = random.Random(1)
    for path in generator.sample([path for path in MODULES if path.stat().st_size], 12):
        source = path.read_text(encoding="utf-8")
        counter = _Constants(-1)
        counter.visit(ast.parse(source))
        for chosen in generator.sample(range(counter.seen + 1), min(3, counter.seen + 1)):
            changed = ast.unparse(ast.fix_missing_locations(_Constants(chosen).visit(ast.parse(source))))
            assert digest(changed) != digest(source), (path, chosen)
