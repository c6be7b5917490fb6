"""Why a stage would run: what changed since it ran last, down to the symbol.

dvc.lock (what it ran with)  <-- compared -->  declarations, code and files as they are now
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import TesseraError, did_you_mean
from flows.declarations.document import read_document
from flows.declarations.stages import StageSpec
from flows.declarations.workspace import Workspace
from flows.engine.code_lock import CodeLock
from flows.engine.compile import all_stages, digest_file, paper_stages, stage_command
from flows.engine.digests import Code, entry_modules, unit_params

SHOWN = 10


class UnknownStage(TesseraError):
    """No stage of the workspace has this name."""


def find_stage(root: Path, address: str) -> StageSpec:
    """Return the stage that an address means.

    Args:
        root: Workspace root.
        address: `one-d-piece:cifar10-judge`, `params/one-d-piece/dvc.yaml:cifar10-judge`, a top-level name such as
            `base-cifar-clf-a`, or any part of one of these that only one stage has (`one-d:judge`).

    Raises:
        UnknownStage: No stage, or more than one, has this name.
    """
    workspace = Workspace.load(root)
    folder, colon, name = address.rpartition(":")
    slug = folder.removeprefix("params/").removesuffix("dvc.yaml").rstrip("/")
    if colon and slug.removesuffix("/full") in workspace.slugs:
        for stage in paper_stages(workspace, slug.removesuffix("/full")):
            if stage.name == name and (stage.profile == "full") == slug.endswith("/full"):
                return stage
    stages = {_short(stage): stage for stage in all_stages(workspace)}
    if address in stages:
        return stages[address]
    fits = [short for short in stages if _fits(short, slug, name)]
    if len(fits) == 1:
        return stages[fits[0]]
    if fits:
        more = f" and {len(fits) - SHOWN} more" if len(fits) > SHOWN else ""
        raise UnknownStage(f"{address!r} fits {len(fits)} stages; name one of {', '.join(fits[:SHOWN])}{more}.")
    hint = did_you_mean(f"{slug}:{name}" if slug else name, stages)
    raise UnknownStage(f"{address!r} is no stage; expected SLUG:STAGE as `tessera show SLUG` lists them.{hint}")


def _short(stage: StageSpec) -> str:
    if stage.file == "dvc.yaml":
        return stage.name
    return f"{stage.file.removeprefix('params/').removesuffix('/dvc.yaml')}:{stage.name}"


def _fits(short: str, slug: str, name: str) -> bool:
    paper, colon, stage = short.rpartition(":")
    return name in short if not slug else bool(colon) and slug in paper and name in stage


def why(root: Path, address: str) -> list[str]:
    """Say what changed since a stage ran last.

    Args:
        root: Workspace root.
        address: What `find_stage` understands.

    Returns:
        One line for each thing that changed; "nothing changed" where the stage is up to date.

    Raises:
        UnknownStage: No stage has this name.
    """
    stage = find_stage(root, address)
    if stage.kind == "code":
        return ["always runs: it looks whether code or parameters changed"]
    return _Reasons(root).of(stage) or ["nothing changed"]


class _Reasons:
    def __init__(self, root: Path) -> None:
        self._root = Path(root).resolve()
        self._workspace = Workspace.load(root)
        self._code = Code(self._root)
        self._lock = CodeLock.read(self._root)
        self._stages = {stage.output: stage for stage in all_stages(self._workspace)}

    def of(self, stage: StageSpec) -> list[str]:
        locked = self._locked(stage)
        if locked is None:
            lines = ["never run: dvc.lock has no record of it"]
        else:
            lines = [*self._declared(stage, locked), *self._files(stage)]
        lines += self._upstream(stage)
        if lines and stage.kind == "base":
            lines.append(f"a base is not retrained by itself; tessera rebuild-base {stage.paper} does it")
        return lines

    def _locked(self, stage: StageSpec) -> Mapping[str, Any] | None:
        lock = stage.file.removesuffix("yaml") + "lock"
        if not (self._root / lock).is_file():
            return None
        return (read_document(self._root, lock, "stages").data.get("stages") or {}).get(stage.name)

    def _declared(self, stage: StageSpec, locked: Mapping[str, Any]) -> Iterator[str]:
        """Compare command, parameters and code: everything that is known without reading data."""
        if locked.get("cmd") != stage_command(stage):
            yield f"command: {locked.get('cmd')} -> {stage_command(stage)}"
        recorded = (locked.get("params") or {}).get(digest_file(stage)) or {}
        before = _flat(recorded.get(f"{stage.unit}.params") or {})
        after = _flat(unit_params(self._workspace, stage))
        for name in [*before, *(name for name in after if name not in before)]:
            if name not in after:
                yield f"parameter {name}: removed (was {before[name]!r})"
            elif name not in before:
                yield f"parameter {name}: new ({after[name]!r})"
            elif before[name] != after[name]:
                yield f"parameter {name}: {before[name]!r} -> {after[name]!r}"
        yield from self._code_changes(stage, recorded.get(f"{stage.unit}.code") or "")

    def _code_changes(self, stage: StageSpec, before: str) -> Iterator[str]:
        entries = entry_modules(self._workspace, stage, self._code)
        after = self._code.digest(entries)
        if after == before:
            return
        old = self._lock.of(before)
        if old is None:
            yield f"code: digest {before or 'none'} -> {after}; what the old one stood for is not in params/code.lock"
            return
        now = self._code.closure(entries)
        for module in sorted({*old, *now}):
            if module not in now:
                gone = "deleted" if not self._code.has(module) else "no longer reached by this stage"
                yield f"code: {module}: {gone}"
            elif module not in old:
                yield f"code: {self._place(module)}: newly reached by this stage"
            else:
                yield from self._symbol_changes(module, old[module])

    def _symbol_changes(self, module: str, before: Mapping[str, str]) -> Iterator[str]:
        symbols = {symbol.name.replace(" ", ""): symbol for symbol in self._code.syntax(module).symbols}
        for name, symbol in symbols.items():
            if before.get(name) != symbol.digest:
                verb = "changed" if name in before else "added"
                yield f"code: {self._place(module)}:{symbol.line}: {symbol.name} {verb}"
        for name in before:
            if name not in symbols:
                yield f"code: {self._place(module)}: {name} removed"
        if dict(before) == {name: symbol.digest for name, symbol in symbols.items()} and list(before) != list(symbols):
            yield f"code: {self._place(module)}: order of definitions changed"

    def _place(self, module: str) -> str:
        path = self._code.path(module)
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)

    def _files(self, stage: StageSpec) -> Iterator[str]:
        """Compare inputs and outputs with the hashes in the lock; DVC does the hashing, and keeps it for next time."""
        from dvc.dependency import ParamsDependency
        from dvc.repo import Repo

        with Repo(str(self._root)) as repo:
            loaded = repo.stage.load_one(path=str(self._root / stage.file), name=stage.name)
            for role, files in (("input", loaded.deps), ("output", loaded.outs)):
                for file in files:
                    if isinstance(file, ParamsDependency):
                        continue
                    path = Path(file.fs_path).relative_to(self._root).as_posix()
                    before = file.hash_info.value
                    after = file.get_hash().value if file.exists else None
                    if after != before:
                        yield _hash_change(role, path, before, after)

    def _upstream(self, stage: StageSpec) -> Iterator[str]:
        """Name the stages above that are stale by what is declared: they run first and may give other inputs."""
        waiting, seen = list(stage.inputs.values()), set()
        while waiting:
            above = self._stages.get(waiting.pop(0))
            if above is None or above.output in seen:
                continue
            seen.add(above.output)
            if above.kind == "base":
                continue  # frozen: its own inputs never make it run
            waiting += above.inputs.values()
            locked = self._locked(above)
            if locked is None or any(self._declared(above, locked)):
                what = "has never run" if locked is None else "changed"
                yield f"upstream: {_short(above)} {what}; tessera why {_short(above)}"


def _hash_change(role: str, path: str, before: str | None, after: str | None) -> str:
    if after is None:
        return f"{role} {path}: missing"
    if before is None:
        return f"{role} {path}: new ({after})"
    return f"{role} {path}: {before} -> {after}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted names."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= _flat(item, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = item
    return found
