"""The import graph of Python source text: modules, and how they refer to one another.

Letters: `N` modules (nodes), `E` edges.

Nothing is imported or run: references are read from the syntax tree, relative ones against the package of the module
that makes them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

RELATIONS = ("import", "from-import", "sub-module")
_PACKAGE_FILE = ".__init__"


@dataclass(frozen=True)
class ImportGraph:
    """Directed edges between modules, each of one relation.

    Attributes:
        modules: Dotted names of the N nodes, sorted.
        heads: Node that imports or contains, int64 (E,).
        relations: Index into RELATIONS, int64 (E,).
        tails: Node that is imported or contained, int64 (E,).
    """

    modules: tuple[str, ...]
    heads: Tensor
    relations: Tensor
    tails: Tensor


def import_graph(sources: pl.DataFrame) -> ImportGraph:
    """Build the graph of a table of source text.

    `import a.b` leads to a.b. `from a import b` leads to a.b where that is a module of the table and else to a. A
    package is joined by `sub-module` to each module directly inside. Imported modules that are not in the table
    (standard library, other packages) are nodes too. Every edge stands once, ordered by head, relation and tail, and
    none leads from a module to itself.

    Args:
        sources: Columns `module` (dotted, `.__init__` for a package's file) and `text`.
    """
    files = dict(zip(sources["module"].to_list(), sources["text"].to_list(), strict=True))
    # A package's own file may be too short to be in the table: what lies inside tells of it.
    known = {parent for name in files for parent in _with_parents(name.removesuffix(_PACKAGE_FILE))}
    edges = {(parent, "sub-module", name) for name in known if (parent := name.rpartition(".")[0])}
    for name, text in files.items():
        module = name.removesuffix(_PACKAGE_FILE)
        package = module if name.endswith(_PACKAGE_FILE) else module.rpartition(".")[0]
        edges.update((module, relation, target) for relation, target in _references(text, package, known))
    edges = {edge for edge in edges if edge[0] != edge[2]}
    modules = sorted(known | {end for head, _, tail in edges for end in (head, tail)})
    place = {name: index for index, name in enumerate(modules)}
    rows = sorted((place[head], RELATIONS.index(relation), place[tail]) for head, relation, tail in edges)
    heads, relations, tails = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return ImportGraph(tuple(modules), heads, relations, tails)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _references(text: str, package: str, known: set[str]) -> Iterator[tuple[str, str]]:
    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.Import):
            yield from (("import", alias.name) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            source = _absolute(statement, package)
            for alias in statement.names:
                inside = f"{source}.{alias.name}"
                yield "from-import", inside if inside in known else source


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    """Return the module that a `from` names: one dot is the module's own package, each further one its parent."""
    if not statement.level:
        return statement.module
    parts = package.split(".")
    above = ".".join(parts[: len(parts) - statement.level + 1])
    return f"{above}.{statement.module}" if statement.module else above
