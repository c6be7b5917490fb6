"""Drift: do the results that now stand in the workspace still say what the last commit says?

After a run that repeated everything (a weekly one), every variant's metrics are compared with those of HEAD: bit for
bit on the machine class that made the committed ones, otherwise by what their seeds let one expect.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.declarations.workspace import Workspace
from flows.engine.comparison import Comparison, compare_by_seeds, compare_exactly
from flows.engine.verify import machine_class


@dataclass(frozen=True)
class Drift:
    """How far one variant's metrics have moved.

    Attributes:
        paper: Slug.
        variant: Variant.
        level: "bit-exact" or "seeds"; "" where nothing is committed to compare with.
        comparison: The metrics; None where nothing is committed.
        verdicts: Claims whose verdict is another one: {claim: (committed, now)}.
    """

    paper: str
    variant: str
    level: str
    comparison: Comparison | None
    verdicts: dict[str, tuple[str, str]]

    @property
    def moved(self) -> bool:
        """Whether a metric or a verdict is not what is committed."""
        return bool(self.verdicts) or (self.comparison is not None and bool(self.comparison.outside))


def drift(root: Path, folders: Iterable[Path]) -> list[Drift]:
    """Compare result folders (`results/<slug>/<variant>`) with what the last commit holds of them.

    Args:
        root: Workspace, a git checkout.
        folders: Folders that a run has written.
    """
    workspace = Workspace.load(root)
    found = []
    for folder in folders:
        if not (folder / "metrics.parquet").is_file():
            continue
        relative = folder.relative_to(root)
        slug, variant = relative.parts[1], relative.parts[-1]
        clocks = workspace.paper(slug).clocks
        found.append(_of(root, relative, folder, slug, variant, clocks))
    return found


def _of(root: Path, relative: Path, folder: Path, slug: str, variant: str, clocks: Iterable[str]) -> Drift:
    import polars as pl

    committed, before = _committed(root, relative / "metrics.parquet"), _committed(root, relative / "verdicts.json")
    if committed is None or before is None:
        return Drift(slug, variant, "", None, {})
    old, new = json.loads(before), json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    tables = pl.read_parquet(io.BytesIO(committed)), pl.read_parquet(folder / "metrics.parquet")
    machines = [machine_class(verdicts.get("machine") or {}) for verdicts in (old, new)]
    exact = machines[0] is not None and machines[0] == machines[1]
    comparison = compare_exactly(*tables, tuple(clocks)) if exact else compare_by_seeds(*tables)
    were, are = _verdicts(old), _verdicts(new)
    changed = {claim: (were[claim], are[claim]) for claim in were.keys() & are.keys() if were[claim] != are[claim]}
    return Drift(slug, variant, "bit-exact" if exact else "seeds", comparison, changed)


def _committed(root: Path, path: Path) -> bytes | None:
    shown = subprocess.run(["git", "show", f"HEAD:./{path.as_posix()}"], cwd=root, capture_output=True, check=False)
    return shown.stdout if shown.returncode == 0 else None


def _verdicts(judged: dict[str, Any]) -> dict[str, str]:
    return {claim["id"]: claim["verdict"] for claim in judged.get("claims", [])}


def summary(found: Iterable[Drift]) -> str:
    """Return one line: how many variants moved, and which."""
    found = list(found)
    moved = [f"{each.paper} / {each.variant}" for each in found if each.moved]
    return f"{len(moved)} of {len(found)} variants moved{': ' + ', '.join(moved) if moved else ''}."


def report(found: Iterable[Drift], limit: int = 20) -> str:
    """Return the report in Markdown: a table of the variants, then what moved in each.

    Args:
        found: The comparisons.
        limit: Metrics listed for one variant; the rest is counted.
    """
    found = list(found)
    lines = [
        summary(found),
        "",
        "| paper | variant | compared | metrics | moved | verdicts changed |",
        "|" + "---|" * 6,
    ]
    for each in found:
        compared = each.comparison.compared if each.comparison else 0
        moved = len(each.comparison.outside) if each.comparison else 0
        level = {"bit-exact": "bit for bit", "seeds": "by seeds", "": "nothing is committed"}[each.level]
        lines.append(f"| {each.paper} | {each.variant} | {level} | {compared} | {moved} | {len(each.verdicts)} |")
    for each in found:
        if not each.moved:
            continue
        lines += ["", f"**{each.paper} / {each.variant}**", ""]
        lines += [f"- claim {claim}: was {old}, is {new}" for claim, (old, new) in sorted(each.verdicts.items())]
        outside = each.comparison.outside if each.comparison else ()
        lines += [f"- {difference}" for difference in outside[:limit]]
        if len(outside) > limit:
            lines.append(f"- and {len(outside) - limit} more")
    return "\n".join(lines)
