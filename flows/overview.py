"""`tessera show`: a paper in the terminal: its story, claims, arms, stages, cost and state.

Only declarations and results are read, so it says at once what is known and starts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.declarations.paper import Paper
from flows.declarations.stages import StageSpec, plan_stages
from flows.declarations.workspace import Workspace
from flows.ledger import costs, verified
from flows.ledger.results import ClaimRow, Record, claim_rows, read_records, spell
from flows.ledger.staleness import staleness
from flows.ledger.verdicts import sentence
from flows.scaffold import placeholders

if TYPE_CHECKING:
    from flows.declarations.paper import Claim

COLOURS = {
    "reproduced": "green", "contradicted": "red", "inconclusive": "yellow", "out of scale": "blue",
    "holds": "green", "fails": "red", "straddles": "yellow",
}  # fmt: skip
_INDENT = 2


def show(root: Path, slug: str, console: Console) -> None:
    """Print everything a reader wants to know of a paper before running it.

    Args:
        root: The workspace.
        slug: The paper.
        console: Where it is printed.

    Raises:
        UnknownPaper: There is no such paper.
        DeclarationError: Its declaration cannot be used.
    """
    workspace = Workspace.load(root)
    paper = workspace.paper(slug)
    records = read_records(workspace.root, paper)
    console.print(Text(paper.title, style="bold"))
    console.print(Text(f"{paper.slug}  family {paper.family}  study {paper.study}\n"))
    console.print(Text(" ".join(paper.story.split()) + "\n"))
    _heading(console, "Claims")
    for row in claim_rows(workspace.root, paper, records):
        _claim(console, row)
    _heading(console, "Arms")
    console.print(_arms(paper))
    for name in paper.variants:
        _variant(console, workspace, paper, name, records)
    if paper.deviations:
        _heading(console, "Deviations from the paper")
        for deviation in paper.deviations:
            _indented(console, Text(" ".join(deviation.what.split())))
    left = len(placeholders(workspace.root, slug))
    if left:
        console.print(Text(f"\n{left} facts are still to be filled in; `tessera validate` lists them.", style="yellow"))
    console.print(
        Text(f"\nrun: tessera reproduce {paper.slug}    page: site/papers/{paper.slug}.html (tessera ledger)")
    )


def _heading(console: Console, words: str) -> None:
    console.print(Text(f"\n{words}", style="bold underline"))


def _claim(console: Console, row: ClaimRow) -> None:
    line = Text.assemble((row.id, "bold"), "  ", (row.verdict, COLOURS.get(row.verdict, "dim")))
    line.append(f"  ({row.claim.cites})", style="dim")
    console.print(line)
    _indented(console, Text(" ".join(row.says.split())))
    for words, standing in _tests(row):
        _indented(console, Text.assemble((standing, COLOURS.get(standing, "dim")), f"  {words}"))


def _indented(console: Console, text: Text) -> None:
    """Print under a heading: wrapped on a terminal, a line each where a program reads."""
    console.print(Padding(text, (0, 0, 0, _INDENT)) if console.is_terminal else Text(" " * _INDENT) + text)


def _tests(row: ClaimRow) -> Iterator[tuple[str, str]]:
    """Yield each test and gate of a claim in words, and where it stands."""
    if row.judged is None or not (row.judged["tests"] or row.judged["gates"]):
        yield from _declared(row.claim)
        return
    for test in row.judged["gates"]:
        yield f"gate: {test['test']}: {spell(test)}", test["holds"]
    for test in row.judged["tests"]:
        yield f"{test['test']}: {spell(test)}", test["holds"]


def _declared(claim: Claim) -> Iterator[tuple[str, str]]:
    if claim.needs:
        yield " ".join(claim.needs.split()), "needs"
    for test in claim.gates:
        yield f"gate: {sentence(test)}", "test"
    for test in claim.tests:
        yield sentence(test), "test"


def _arms(paper: Paper) -> Table:
    table = Table("arm", "what it is", "seeds", "model", box=None, header_style="bold", pad_edge=False)
    for name, arm in paper.arms.items():
        seeds = arm.seeds or paper.seeds
        model = {name: "its own", None: "none"}.get(paper.model_of(name), f"that of {paper.model_of(name)}")
        table.add_row(Text(name), Text(arm.says), Text(", ".join(map(str, seeds))), Text(model))
    return table


def _variant(console: Console, workspace: Workspace, paper: Paper, name: str, records: list[Record]) -> None:
    variant = paper.variants[name]
    kind = "canonical" if variant.canonical else "demo, never counted" if variant.demo else "further evidence"
    _heading(console, f"Variant {name} ({kind})")
    if variant.says:
        console.print(Text(variant.says))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    if "small" in paper.profiles:
        for words, what in _stages(plan_stages(paper, name, "small"), paper):
            grid.add_row(words, Text(what))
    record = next((r for r in records if r.variant == name and r.profile == "small"), None)
    grid.add_row("cost", Text(_cost(workspace.root, paper, name, record)))
    grid.add_row("state", Text(_state(workspace.root, paper, record)))
    console.print(grid)


def _stages(specs: list[StageSpec], paper: Paper) -> Iterator[tuple[str, str]]:
    """Yield the stages of a variant in the order in which they run, seeds and arms of one model together."""
    inputs = dict.fromkeys(name for spec in specs for name in spec.inputs if name.startswith(("data/", "bases/")))
    makers = [name.replace("data/", "data-").replace("bases/", "base-") for name in inputs]
    yield "reads", ", ".join(makers) or "nothing"
    evaluated: dict[str | None, dict[str, int]] = {}
    for spec in specs:
        if spec.kind == "evaluate":
            of_model = evaluated.setdefault(paper.model_of(spec.arm), {})
            of_model[spec.arm] = of_model.get(spec.arm, 0) + 1
    for model, arms in evaluated.items():
        trained = sum(spec.kind == "train" and spec.arm == model for spec in specs)
        before = f"train {model} x{trained} -> " if model else ""
        yield "runs", f"{before}evaluate {', '.join(f'{arm} x{count}' for arm, count in arms.items())}"
    judge = specs[-1]
    yield "judges", f"{judge.name} -> {judge.output}  ({len(specs)} stages in all)"


def _cost(root: Path, paper: Paper, name: str, record: Record | None) -> str:
    declared = paper.variants[name].minutes or (paper.profiles["small"].minutes if "small" in paper.profiles else None)
    words = [f"{declared:g} minutes declared for two cores"] if declared else []
    if record is not None and record.verdicts.get("minutes"):
        words.append(f"{record.verdicts['minutes']:.1f} minutes of stages measured")
        known = costs.read(root, paper.slug, name, "small")
        if known:
            longest = max(known, key=lambda stage: known[stage].wall_seconds)
            peak = max(cost.peak_memory_bytes for cost in known.values()) / 2**30
            words.append(f"longest {longest} ({known[longest].wall_seconds / 60:.1f} minutes), peak {peak:.1f} GiB")
        if processor := record.verdicts["machine"].get("processor"):
            words.append(f"on {processor}")
    return "; ".join(words) or "not declared"


def _state(root: Path, paper: Paper, record: Record | None) -> str:
    if record is None:
        return "not run yet"
    last = verified.read(root, paper.slug).get(record.variant)
    commit = record.verdicts["git_commit"][:12] or "an unknown commit"
    age = staleness(root, record.verdicts)
    return f"judged at {commit}; {age.state}: {age.says} Verified: {verified.standing(last, record.verdicts)}."
