"""From declarations to `dvc.yaml`: what `tessera sync` writes, so that plain `dvc repro` knows every stage.

paper.yaml, data.yaml, bases.yaml --> plan of stages --> params/<slug>/dvc.yaml, dvc.yaml --> JSON Schemas
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.declarations.document import read_document
from flows.declarations.files import write_if_changed
from flows.declarations.paper import Paper
from flows.declarations.problems import DeclarationError
from flows.declarations.schema import schema_files
from flows.declarations.stages import StageSpec, base_stage, data_stage, plan_stages
from flows.declarations.workspace import Workspace
from flows.declarations.yaml_text import yaml_text

__all__ = ["Change", "StageSpec", "base_stage", "data_stage", "plan_stages", "sync"]

PAPER_HEADER = "compiled by tessera sync; edit paper.yaml"
TOP_HEADER = "compiled by tessera sync; edit params/data.yaml, params/bases.yaml or params/<slug>/paper.yaml"


@dataclass(frozen=True)
class Change:
    """One compiled file that differs from its declarations.

    Attributes:
        path: File, relative to the workspace.
        action: What sync does to it.
        says: Which stages, in words.
    """

    path: str
    action: Literal["create", "update", "remove"]
    says: str

    def __str__(self) -> str:
        return f"{self.action} {self.path}: {self.says}" if self.says else f"{self.action} {self.path}"


def sync(
    root: Path, *, check: bool = False, profile: str = "small", papers: Iterable[str] | None = None
) -> list[Change]:
    """Compile every `dvc.yaml` and JSON Schema; remove what no declaration stands for any more.

    Args:
        root: Workspace root.
        check: Only compare; write nothing.
        profile: "full" also compiles `params/<slug>/full/dvc.yaml` of `papers`; where one exists already it is kept
            up to date anyway.
        papers: The papers whose full profile is wanted; all that declare one where this is None.

    Returns:
        What changed, or would change.

    Raises:
        DeclarationError: Declarations have errors; nothing was written.
    """
    workspace = Workspace.load(root)
    errors = [problem for problem in workspace.problems() if not problem.warning]
    if errors:
        raise DeclarationError(errors)
    wanted = [workspace.paper(slug).slug for slug in papers or workspace.slugs] if profile == "full" else []
    compiled = compiled_stages(workspace, wanted)
    texts = {path: yaml_text({"stages": stages}, _header(path)) for path, stages in compiled.items()}
    changes = [*_removed(workspace.root, compiled, check), *_written(workspace.root, compiled, texts, check)]
    changes += _written(workspace.root, {}, schema_files(), check)
    return sorted(changes, key=lambda change: change.path)


def compiled_stages(workspace: Workspace, full: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the stages of every `dvc.yaml`, as DVC spells them, by path of the file.

    Args:
        workspace: Sound declarations.
        full: Papers whose full profile is compiled too, beside those for which that was done before.
    """
    files = {"dvc.yaml": _top(workspace, full)}
    for slug in workspace.slugs:
        files[f"params/{slug}/dvc.yaml"] = _stages_of_paper(workspace.paper(slug), "small", "../..")
    for slug in _papers_in_full(workspace, full):
        files[f"params/{slug}/full/dvc.yaml"] = _stages_of_paper(workspace.paper(slug), "full", "../../..")
    return files


def digest_files(workspace: Workspace, full: Collection[str] = ()) -> list[str]:
    """Return the path of every digest file, which the stage `code` writes.

    Args:
        workspace: Sound declarations.
        full: Papers whose full profile counts too, beside those for which it was compiled before.
    """
    in_full = [f"params/{slug}/full/digests.json" for slug in _papers_in_full(workspace, full)]
    return ["params/digests.json", *(f"params/{slug}/digests.json" for slug in workspace.slugs), *in_full]


def digest_file(stage: StageSpec) -> str:
    """Return the file that holds a stage's code digest and parameters under its unit."""
    return "params/digests.json" if stage.kind in ("data", "base") else stage.file.replace("dvc.yaml", "digests.json")


def all_stages(workspace: Workspace) -> Iterator[StageSpec]:
    """Return every stage that DVC knows: data, bases, and each paper's at small (and at full where compiled)."""
    yield StageSpec.code()
    yield from (data_stage(workspace, name) for name in workspace.data)
    yield from (base_stage(workspace, name) for name in workspace.bases)
    for slug in workspace.slugs:
        yield from paper_stages(workspace, slug)


def paper_stages(workspace: Workspace, slug: str) -> Iterator[StageSpec]:
    """Return every stage of one paper that DVC knows."""
    paper = workspace.paper(slug)
    for profile in ("small", "full") if _runs_in_full(workspace, slug) else ("small",):
        yield from (stage for variant in paper.variants for stage in plan_stages(paper, variant, profile))


def _papers_in_full(workspace: Workspace, wanted: Collection[str] = ()) -> list[str]:
    return [slug for slug in workspace.slugs if _runs_in_full(workspace, slug, slug in wanted)]


def _runs_in_full(workspace: Workspace, slug: str, wanted: bool = False) -> bool:
    chosen = wanted or (workspace.root / "params" / slug / "full" / "dvc.yaml").is_file()
    return chosen and "full" in workspace.paper(slug).profiles


def _header(path: str) -> str:
    return TOP_HEADER if path == "dvc.yaml" else PAPER_HEADER


def _stages_of_paper(paper: Paper, profile: str, to_root: str) -> dict[str, Any]:
    planned = (stage for variant in paper.variants for stage in plan_stages(paper, variant, profile))
    return {stage.name: _in_order(_entry(stage) | {"wdir": to_root}) for stage in planned}


def _top(workspace: Workspace, full: Collection[str]) -> dict[str, Any]:
    code = StageSpec.code()
    stages: dict[str, Any] = {
        "code": {
            "cmd": stage_command(code),
            "desc": code.says,
            # Kept between runs: DVC would delete the files first, and then every run would rewrite all of them.
            "outs": [{path: {"cache": False, "persist": True}} for path in digest_files(workspace, full)],
            "always_changed": True,
        }
    }
    for name in workspace.data:
        stage = data_stage(workspace, name)
        stages[stage.name] = _in_order(_entry(stage))
    for name in workspace.bases:
        stage = base_stage(workspace, name)
        # A base changes only by `tessera rebuild-base`, never by itself: papers are built on it.
        stages[stage.name] = _in_order(_entry(stage) | {"frozen": True})
    return stages


def _entry(stage: StageSpec) -> dict[str, Any]:
    tracked_by_git = stage.kind in ("base", "judge")
    entry: dict[str, Any] = {
        "desc": stage.says,
        "cmd": stage_command(stage),
        "params": [{digest_file(stage): [f"{stage.unit}.code", f"{stage.unit}.params"]}],
        "outs": [{stage.output: {"cache": False}} if tracked_by_git else stage.output],
        "meta": dict(stage.resources),
    }
    if stage.inputs:
        entry["deps"] = sorted(set(stage.inputs.values()))
    return entry


def _in_order(entry: dict[str, Any]) -> dict[str, Any]:
    keys = ("desc", "cmd", "wdir", "deps", "params", "outs", "meta", "frozen")
    return {key: entry[key] for key in keys if key in entry}


def stage_command(stage: StageSpec) -> str:
    """Return the command that stands in dvc.yaml for a stage."""
    return " ".join(("python", "-m", "flows.stage", *stage.arguments))


def _written(
    root: Path, compiled: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str], check: bool
) -> Iterator[Change]:
    for path, text in texts.items():
        old = (root / path).read_bytes() if (root / path).is_file() else None
        if old == text.encode():
            continue
        says = _difference(_stages_in(root, path), compiled[path]) if path in compiled else ""
        if not check:
            write_if_changed(root / path, text.encode())
        yield Change(path, "create" if old is None else "update", says)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    groups = {
        "new": [name for name in after if name not in before],
        "gone": [name for name in before if name not in after],
        "changed": [name for name in after if name in before and after[name] != before[name]],
    }
    return "; ".join(f"{what}: {_shortened(names)}" for what, names in groups.items() if names)


def _stages_in(root: Path, path: str) -> Mapping[str, Any]:
    """Return the stages of a file as it lies there; none where it is missing or was damaged by hand."""
    try:
        stages = read_document(root, path, "stages").data.get("stages")
    except DeclarationError:
        return {}
    return stages if isinstance(stages, dict) else {}


def _shortened(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _removed(root: Path, compiled: Mapping[str, Mapping[str, Any]], check: bool) -> Iterator[Change]:
    """Remove compiled files of papers that are gone, and lock entries of stages that are gone."""
    params = root / "params"
    for file in [*params.glob("*/dvc.yaml"), *params.glob("*/full/dvc.yaml")]:
        ours = file.read_text(encoding="utf-8", errors="replace").startswith(f"# {PAPER_HEADER}")
        if file.relative_to(root).as_posix() in compiled or not ours:
            continue
        for orphan in (file, file.with_name("dvc.lock"), file.with_name("digests.json")):
            if orphan.is_file():
                if not check:
                    orphan.unlink()
                yield Change(orphan.relative_to(root).as_posix(), "remove", "no declaration stands for it")
    for path, stages in compiled.items():
        lock = path.removesuffix("yaml") + "lock"
        if (root / lock).is_file():
            text, gone = _without_orphans((root / lock).read_text(encoding="utf-8"), stages)
            if gone:
                if not check:
                    write_if_changed(root / lock, text.encode())
                yield Change(lock, "update", f"gone: {_shortened(gone)}")


_LOCK_ENTRY = re.compile(r"^  ([\w-]+):[ \t]*\n(?:(?:   .*| {0,3})\n)*", re.MULTILINE)


def _without_orphans(lock: str, stages: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Cut the entries of stages that no longer exist out of a lock's text, and leave every other byte alone."""
    gone = [match[1] for match in _LOCK_ENTRY.finditer(lock) if match[1] not in stages]
    return _LOCK_ENTRY.sub(lambda match: match[0] if match[1] in stages else "", lock), gone
