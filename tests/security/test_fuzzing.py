"""Files that nobody would write on purpose: a clear error or a correct result; never a traceback, hang or stray write.

Each kind is tried some dozens of times with every test run, always the same ones; the slow form tries 2,000 in all,
other ones each time. An example that fails is printed whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from mutations import in_time, mutated_bytes, mutated_data, mutated_text, snapshot
from paper_faults import PAPER
from tracked import ROOT
from workspace import make_workspace, register_toy_study, write

from components.data import parquet, tables
from components.data.fetched import file_sha256
from components.data.registry import materialise
from components.errors import TesseraError
from components.metrics.tables import MetricTable
from flows.declarations.paper import Paper
from flows.declarations.stages import base_stage, data_stage, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import compiled_stages
from flows.ledger.measurements import Measurements
from flows.ledger.verdicts import claims_of, constant_arms, judge_claim

SHORT, LONG = 25, 500
VERDICTS = {"reproduced", "contradicted", "inconclusive", "out of scale"}
# What Polars says of a damaged file; the runner of stages puts it into words (tests/flows/test_stage.py).
DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_SLACK = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

register_toy_study()


def fuzz(strategy: st.SearchStrategy, check: Callable[[Any], None], examples: int) -> None:
    """Check examples: the same few each time, or many new ones."""

    @settings(
        max_examples=examples,
        derandomize=examples == SHORT,
        database=None,
        deadline=None,
        suppress_health_check=_SLACK,
    )
    @given(strategy)
    def every_example(example: Any) -> None:
        note(example.decode("utf-8", "replace") if isinstance(example, bytes) else repr(example))
        with in_time():
            check(example)

    every_example()


examples = pytest.mark.parametrize(
    "examples", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"]
)


def inside(root: Path, path: str) -> bool:
    """Tell whether a path of a stage lies below the workspace, in one of its folders for outputs."""
    return Path(os.path.normpath(root / path)).parts[: len(root.parts)] == root.parts and ".." not in Path(path).parts


def refused(attempt: Callable[[], Any], *also: type[BaseException]) -> str:
    """Return the message of an error of ours, which says something; "" where there was none."""
    said = ""
    try:
        attempt()
    except (TesseraError, *also) as error:
        said = str(error) or "nothing"
    assert said != "nothing"
    assert len(said) < 200_000
    return said


def check_workspace(root: Path) -> None:
    """Read, check, plan and compile whatever is declared: it works, or a line of a file is named."""
    workspace = Workspace.load(root)
    problems = workspace.problems()
    for problem in problems:
        assert problem.message.strip()
        assert problem.line is None or problem.line >= 1
    if any(not problem.warning for problem in problems):
        refused(lambda: [workspace.paper(slug) for slug in workspace.slugs])
        return
    specs = [data_stage(workspace, name) for name in workspace.data]
    specs += [base_stage(workspace, name) for name in workspace.bases]
    for slug in workspace.slugs:
        paper = workspace.paper(slug)
        specs += [
            spec for variant in paper.variants for name in paper.profiles for spec in plan_stages(paper, variant, name)
        ]
    for spec in specs:
        assert all(inside(root, path) for path in (spec.output, spec.log, *spec.inputs.values())), spec
        if spec.kind in ("train", "evaluate", "base"):
            spec.resolve(workspace)
    compiled_stages(workspace)


@pytest.fixture
def root(tmp_path) -> Path:
    return make_workspace(tmp_path / "outer" / "w", papers=1)


@examples
def test_a_mutated_paper_is_refused_with_its_line_or_planned_inside_the_workspace(root, examples):
    def check(source: bytes) -> None:
        (root / "params/toy-0/paper.yaml").write_bytes(source)
        check_workspace(root)

    outside = snapshot(root.parent).keys() - {f"w/{path}" for path in snapshot(root)}
    fuzz(mutated_text(PAPER), check, examples)
    assert snapshot(root.parent).keys() - {f"w/{path}" for path in snapshot(root)} == outside


REAL = sorted(path.parent.name for path in (ROOT / "params").glob("*/paper.yaml"))


@examples
def test_a_mutated_paper_of_the_ledger_is_refused_or_planned(tmp_path, examples):
    root = tmp_path / "w"
    for name in ("data.yaml", "bases.yaml", "catalogue.yaml"):
        write(root, f"params/{name}", (ROOT / "params" / name).read_text(encoding="utf-8"))
    shared = Workspace.load(root)
    known = {name: getattr(shared, name) for name in ("data", "bases", "catalogue")}

    def check(case: tuple[str, bytes]) -> None:
        slug, source = case
        shutil.rmtree(root / "params" / slug, ignore_errors=True)
        write(root, f"params/{slug}/paper.yaml", "")
        (root / "params" / slug / "paper.yaml").write_bytes(source)
        workspace = Workspace.load(root)
        workspace.__dict__.update(known)
        problems = workspace.problems([slug])
        if not any(not problem.warning for problem in problems):
            paper = workspace.paper(slug)
            for variant in paper.variants:
                for spec in plan_stages(paper, variant, "small"):
                    assert all(inside(root, path) for path in (spec.output, spec.log, *spec.inputs.values()))
        shutil.rmtree(root / "params" / slug)

    def cases(slug: str) -> st.SearchStrategy:
        text = (ROOT / "params" / slug / "paper.yaml").read_text(encoding="utf-8")
        return st.tuples(st.just(slug), mutated_text(text))

    fuzz(st.sampled_from(REAL).flatmap(cases), check, examples // 2)


DATA = """\
letters:
  title: Letters
  licence: none
  attribution: nobody
  tables: {letters.parquet: {rows: 40, columns: {name: string, number: int64}}}
  splits: {by: hash, column: name, shares: {train: 0.5, test: 0.5}}
  editions: {one: {says: all}}
  sources: [{kind: mirror, edition: one, files: {letters.parquet: SHA}}]
drawn:
  title: Drawn
  licence: none
  attribution: nobody
  embedded: true
  tables: {digits.parquet: {columns: {image: {array: [uint8, 64]}, label: int8}}}
  splits: {by: file, files: {all: digits.parquet}}
  editions: {one: {says: all, content: {digits.parquet: SHA}}}
  sources: [{kind: package, edition: one, packages: [scikit-learn], function: components.data.digits.convert}]
"""


@examples
def test_a_mutated_data_set_is_refused_or_obtained_inside_its_folder(tmp_path, examples):
    outer = tmp_path / "outer"
    root, mirror = make_workspace(outer / "w", papers=1), outer / "mirror"
    (mirror / "letters").mkdir(parents=True)
    frame = pl.DataFrame(
        {"name": [f"n{i}" for i in range(40)], "number": range(40)}, schema_overrides={"number": pl.Int64}
    )
    parquet.write(frame, mirror / "letters" / "letters.parquet")
    sound = DATA.replace("SHA", file_sha256(mirror / "letters" / "letters.parquet"))
    before = snapshot(mirror)

    def check(source: bytes) -> None:
        (root / "params/data.yaml").write_bytes(source)
        check_workspace(root)
        if refused(lambda: Workspace.load(root).data):
            return
        for name, declaration in Workspace.load(root).data.items():
            if any(each.kind != "mirror" for each in declaration.sources):
                continue
            shutil.rmtree(root / "data", ignore_errors=True)
            target = root / "data" / "made"
            said = refused(lambda d=declaration, n=str(name), t=target: materialise(n, d, t, mirror=mirror))
            if not said:
                for split in tables.split_names(target):
                    refused(lambda s=split, t=target: tables.read_split(t, s))

    fuzz(mutated_text(sound), check, examples)
    assert snapshot(mirror) == before
    assert sorted(path.name for path in outer.iterdir()) == ["mirror", "w"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> tuple[Paper, dict[tuple[str, int], Path]]:
    """The toy paper and a table of metrics of each of its evaluations."""
    root = make_workspace(tmp_path_factory.mktemp("judged"), papers=1)
    write(root, "params/toy-0/paper.yaml", PAPER)
    paper = Workspace.load(root).paper("toy-0")
    runs = {}
    for arm in paper.arms_of("plain"):
        for seed in paper.seeds_of("plain", arm):
            table = MetricTable()
            for share in (1, 2, 4):
                table.add_items("error", [0.1 * item + seed for item in range(8)], at={"share": share}, unit="")
                table.add("count", 50.0 / share, at={"share": share}, unit="", samples=8, variance=0.1)
            table.add("error", 0.5 + seed, unit="", samples=8, variance=0.1)
            runs[arm, seed] = root / "runs" / f"{arm}-{seed}"
            runs[arm, seed].mkdir(parents=True)
            table.write(runs[arm, seed])
    return paper, runs


def judge_all(paper: Paper, runs: dict[tuple[str, int], Path]) -> None:
    measurements = Measurements(runs, constant_arms(paper))
    for claim in claims_of(paper, "plain"):
        assert judge_claim(claim, measurements, "small").verdict in VERDICTS


@examples
def test_a_mutated_table_of_claims_is_refused_or_judged_with_one_of_four_words(judged, tmp_path, examples):
    runs = judged[1]
    sound = yaml.safe_load(PAPER)["claims"]
    root = make_workspace(tmp_path / "w", papers=1)

    def check(claims: Any) -> None:
        text = yaml.safe_dump(yaml.safe_load(PAPER) | {"claims": claims}, sort_keys=False)
        write(root, "params/toy-0/paper.yaml", text)
        workspace = Workspace.load(root)
        if any(not problem.warning for problem in workspace.problems(["toy-0"])):
            return
        refused(lambda: judge_all(workspace.paper("toy-0"), runs))

    fuzz(mutated_data(sound), check, examples)


@examples
def test_a_mutated_table_of_metrics_is_refused_or_judged(judged, tmp_path, examples):
    paper, runs = judged
    run = next(iter(runs))
    sound = (runs[run] / "metrics.parquet").read_bytes()
    changed = runs | {run: tmp_path}

    def check(content: bytes) -> None:
        (tmp_path / "metrics.parquet").write_bytes(content)
        refused(lambda: judge_all(paper, changed), *DAMAGE)

    fuzz(mutated_bytes(sound), check, examples)


@examples
def test_a_mutated_parquet_file_is_refused_or_read(tmp_path, examples):
    directory = tmp_path / "letters"
    directory.mkdir()
    frame = pl.DataFrame({
        "name": [f"n{i}" for i in range(200)], "number": list(range(200)), "list": [[i] * (i % 5) for i in range(200)],
        "bytes": [bytes([i]) * i for i in range(200)],
    })  # fmt: skip
    parquet.write(frame, directory / "letters.parquet")
    sound = (directory / "letters.parquet").read_bytes()
    write(directory, "meta.json", json.dumps({"name": "letters", "tables": {}, "splits": None}))

    def check(content: bytes) -> None:
        (directory / "letters.parquet").write_bytes(content)
        refused(lambda: tables.read(directory, "letters.parquet"), *DAMAGE)
        refused(lambda: tables.read(directory, "letters.parquet", ["name", "bytes"]), *DAMAGE)

    fuzz(mutated_bytes(sound), check, examples)
