"""Staleness that is precise about code and blind to cosmetics: the digest of what each stage can reach.

    entry module + components the arm names --import closure--> modules --syntax, no comments--> code digest
    study defaults, profile, variant, arm   --resolution------> parameters                 --> digests.json --> DVC

A module counts when the stage's entry module imports it, directly or not, at the top or inside a function; imports
under `if TYPE_CHECKING` do not count. Declarations are left out: they only carry values, which stand in the digest file
as resolved parameters. Of a study's params module only what computes counts (methods and properties).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from components.errors import TesseraError, did_you_mean
from flows.declarations.files import write_if_changed
from flows.declarations.paper import Paper
from flows.declarations.stages import StageSpec
from flows.declarations.study import entry_candidates, load_recipe, load_study, params_module, recipe_params_module
from flows.declarations.workspace import Workspace
from flows.engine.code_lock import CodeLock, ModuleRecord, locked_digests
from flows.engine.compile import Change, all_stages, digest_file, digest_files
from flows.engine.syntax import Symbol, Syntax, read_syntax

PACKAGES = ("components", "flows")

# Reached by every stage that computes, whatever its entry module imports: the runner resets random state with it.
DETERMINISM = "components.training.determinism"
JUDGE = "flows.ledger.judge"

_UNIT_DIGITS = 32
_DECLARATION = re.compile(r"flows\.declarations(\..+)?")
_PARAMS = re.compile(r"flows\.studies\.(\w+(\.\w+)?\.params|bases\.\w+_params)")
# Validators refuse values or spell them otherwise; what comes out is hashed as the resolved value.
_VALIDATORS = frozenset({"field_validator", "model_validator", "validator", "root_validator"})


class CodeError(TesseraError):
    """A stage's code cannot be found, so no digest can be given."""


class Code:
    """The first-party modules of a checkout: who imports whom, and what each one means.

    Args:
        root: Workspace root, for the cache of parsed modules.
        packages: Top-level packages; they are found where this process imports them from.
    """

    def __init__(self, root: Path, packages: tuple[str, ...] = PACKAGES) -> None:
        self._root = root
        self._packages = packages
        self._imports: dict[str, frozenset[str]] = {}
        self._syntaxes: dict[str, Syntax] = {}
        self._closures: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._cache = _SyntaxCache(root)

    @cached_property
    def _graph(self) -> Any:
        import grimp

        # Grimp's own cache trusts time stamps, and an edit within one tick would be missed; without it the graph of
        # 130 modules takes 15 ms.
        return grimp.build_graph(*self._packages, cache_dir=None, exclude_type_checking_imports=True)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {name: Path(__import__(name).__file__).parent for name in self._packages}

    def has(self, module: str) -> bool:
        """Tell whether there is such a first-party module."""
        return module in self._graph.modules

    def path(self, module: str) -> Path:
        """Return the file of a module."""
        package, *parts = module.split(".")
        folder = self._folders[package].joinpath(*parts)
        return folder / "__init__.py" if folder.is_dir() else folder.with_name(folder.name + ".py")

    def syntax(self, module: str) -> Syntax:
        """Return the hashes of a module; of a params module, of what computes in it."""
        if module not in self._syntaxes:
            path = self.path(module)
            found = self._cache.read(path.read_bytes(), str(path))
            self._syntaxes[module] = _what_computes(found) if _PARAMS.fullmatch(module) else found
        return self._syntaxes[module]

    def closure(self, entries: Iterable[str]) -> tuple[str, ...]:
        """Return the modules that a stage reaches, sorted.

        Args:
            entries: The modules it starts from.

        Raises:
            CodeError: One of them does not exist.
        """
        start = tuple(sorted(set(entries)))
        if start not in self._closures:
            for module in start:
                if not self.has(module):
                    known = [name for name in self._graph.modules if name.startswith(module.rpartition(".")[0])]
                    raise CodeError(f"{module} is no module of this checkout.{did_you_mean(module, known)}")
            found: set[str] = set()
            waiting = list(start)
            while waiting:
                module = waiting.pop()
                if module not in found and not _DECLARATION.fullmatch(module):
                    found.add(module)
                    waiting += self._imported_by(module)
            self._closures[start] = tuple(sorted(module for module in found if self.syntax(module).symbols))
        return self._closures[start]

    def digest(self, entries: Iterable[str]) -> str:
        """Return the code digest of a stage that starts from these modules."""
        return unit_hash((module, self.syntax(module).digest) for module in self.closure(entries))

    def record(self, lock: CodeLock, entries: Iterable[str]) -> str:
        """Record in a lock what a digest stands for; return the digest."""
        entries = list(entries)
        closure = self.closure(entries)
        digest = self.digest(entries)
        if digest not in lock.digests:
            lock.add(digest, (ModuleRecord(module, _hashes(self.syntax(module))) for module in closure))
        return digest

    def save(self) -> None:
        """Write the cache of parsed modules."""
        self._cache.save()

    def _imported_by(self, module: str) -> frozenset[str]:
        if module not in self._imports:
            packages = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
            imported = self._graph.find_modules_directly_imported_by(module)
            self._imports[module] = frozenset({*imported, *packages})
        return self._imports[module]


def unit_hash(modules: Iterable[tuple[str, str]]) -> str:
    """Return the code digest over (module, module digest) pairs."""
    text = "\n".join(f"{module} {digest}" for module, digest in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()[:_UNIT_DIGITS]


def _hashes(syntax: Syntax) -> dict[str, str]:
    return {symbol.name: symbol.digest for symbol in syntax.symbols}


def _what_computes(syntax: Syntax) -> Syntax:
    kept: list[Symbol] = []
    for symbol in syntax.symbols:
        if symbol.kind == "function" and symbol.name != "components" and not _VALIDATORS & set(symbol.decorators):
            kept.append(symbol)
    text = "\n".join(f"{symbol.name} {symbol.digest}" for symbol in kept)
    return Syntax(hashlib.sha256(text.encode()).hexdigest()[:16], tuple(kept))


class _SyntaxCache:
    """Parsed modules by the hash of their bytes, kept between processes; no time stamp is trusted."""

    def __init__(self, root: Path) -> None:
        self._file = root / ".tessera" / "syntax.json"
        self._used: dict[str, Any] = {}
        self._changed = False
        try:
            entries = json.loads(self._file.read_bytes())
            self._known = entries if isinstance(entries, dict) else {}
        except (OSError, ValueError):  # a missing or damaged cache is only a miss
            self._known = {}

    def read(self, source: bytes, path: str) -> Syntax:
        key = hashlib.sha256(source).hexdigest()
        entry = self._known.get(key)
        if entry is None:
            syntax = read_syntax(source, path)
            entry = [syntax.digest, [[s.name, s.digest, s.line, s.kind, list(s.decorators)] for s in syntax.symbols]]
            self._known[key] = entry
            self._changed = True
        self._used[key] = entry
        digest, symbols = entry
        return Syntax(digest, tuple(Symbol(*fields, tuple(decorators)) for *fields, decorators in symbols))

    def save(self) -> None:
        if self._changed and self._file.parent.is_dir():
            temporary = self._file.with_suffix(f".{os.getpid()}")
            with contextlib.suppress(OSError):
                temporary.write_text(json.dumps(self._used, separators=(",", ":")), encoding="utf-8")
                os.replace(temporary, self._file)


def entry_modules(workspace: Workspace, stage: StageSpec, code: Code) -> list[str]:
    """Return the modules from which a stage's code is reached.

    Raises:
        CodeError: Neither the study nor the paper has a function for this stage.
        DeclarationError: The stage's parameters do not resolve.
    """
    if stage.kind == "data":
        return workspace.data_set(stage.paper).modules()
    if stage.kind == "base":
        recipe = load_recipe(stage.study)
        chosen = recipe.components(stage.resolve(workspace), "train")
        return [f"flows.studies.bases.{stage.study}", recipe_params_module(stage.study), DETERMINISM, *chosen]
    entry = next(
        (module for module in entry_candidates(stage.study, stage.paper, stage.kind) if code.has(module)), None
    )
    if stage.kind == "judge":
        return [JUDGE, *([entry] if entry else [])]
    if entry is None:
        own, shared = entry_candidates(stage.study, stage.paper, stage.kind)
        raise CodeError(
            f"{stage.address}: nothing to run; expected a function {stage.kind}(stage) in {shared} or {own}."
        )
    chosen = load_study(stage.study, stage.paper).components(stage.resolve(workspace), stage.kind)
    return [entry, params_module(stage.study, stage.paper), DETERMINISM, *chosen]


def unit_params(workspace: Workspace, stage: StageSpec) -> dict[str, Any]:
    """Return what a stage depends on besides code and inputs, as plain values."""
    if stage.kind == "data":
        return workspace.data_set(stage.paper).model_dump(mode="json")
    if stage.kind == "judge":
        return _judge_params(workspace.paper(stage.paper), stage.variant)
    values = stage.resolve(workspace).model_dump(mode="json")
    # A batch is cut into as many shards as workers are declared, each with random numbers of its own.
    workers = stage.resources.get("workers", 1)
    return values | ({"workers": workers} if workers != 1 else {})


def _judge_params(paper: Paper, variant: str) -> dict[str, Any]:
    """Hash each claim and what the judge says about arms: a changed test is judged anew, a changed story is not."""
    metrics = load_study(paper.study, paper.slug).metrics
    claims = [claim for claim in paper.claims if paper.variant_of(claim) == variant]
    named = sorted({metric for claim in claims for test in (*claim.gates, *claim.tests) for metric in test.metrics})
    return {
        "claims": {claim.id: _short_hash(claim.model_dump(mode="json", by_alias=True)) for claim in claims},
        "arms": {name: arm.says for name, arm in paper.arms_of(variant).items()},
        "metrics": {name: f"{metrics[name].unit} {metrics[name].better}".strip() for name in named if name in metrics},
    }


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def read_units(root: Path, stage: StageSpec) -> dict[str, dict[str, Any]]:
    """Return what the digest file of a stage holds: code digest and parameters by unit; empty where there is none.

    The file is JSON, not YAML, because DVC reads it once for every stage.
    """
    try:
        return json.loads((root / digest_file(stage)).read_bytes())
    except FileNotFoundError:
        return {}


def write_digests(root: Path, *, check: bool = False) -> list[Change]:
    """Write the code digest and the parameters of every unit; what the stage `code` does.

    Files whose content is the same are not touched. What new digests stand for is recorded in `params/code.lock`.

    Args:
        root: Workspace root.
        check: Only compare; write nothing.

    Returns:
        What changed, or would change.

    Raises:
        CodeError: A stage has no code; files of papers whose stages have are written all the same.
        DeclarationError: Declarations do not resolve.
    """
    workspace = Workspace.load(root)
    code, lock = Code(workspace.root), CodeLock.read(workspace.root)
    known, current = set(lock.digests), set()
    files: dict[str, dict[str, Any]] = {path: {} for path in digest_files(workspace)}
    failures: dict[str, list[str]] = {}
    for stage in all_stages(workspace):
        path = digest_file(stage)
        if stage.kind == "code" or stage.unit in files[path]:
            continue
        try:
            digest = code.record(lock, entry_modules(workspace, stage, code))
        except CodeError as error:
            failures.setdefault(path, []).append(str(error))
            continue
        current.add(digest)
        files[path][stage.unit] = {"code": digest, "params": unit_params(workspace, stage)}
    changes = []
    for path, units in files.items():
        file, text = workspace.root / path, (json.dumps(units, indent=1) + "\n").encode()
        if path in failures or (file.is_file() and file.read_bytes() == text):
            continue
        changes.append(Change(path, "update" if file.is_file() else "create", ""))
        if not check:
            write_if_changed(file, text)
    if not current <= known and not check:
        lock.keep(current | locked_digests(workspace.root))
        lock.write(workspace.root)
    code.save()
    if failures:
        raise CodeError("\n".join(dict.fromkeys(words for found in failures.values() for words in found)))
    return changes
