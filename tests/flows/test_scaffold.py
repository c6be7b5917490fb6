"""`tessera new`: what it writes is valid and waits for its reader; what it cannot write leaves nothing behind."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import REPOSITORY, command, make_workspace, write

import components.analysis
from flows.declarations.study import UnknownStudy, load_study, study_names
from flows.declarations.workspace import Workspace
from flows.scaffold import FILL_IN, CannotStartPaper, components_of, placeholders, start_paper

REAL_STUDIES = [name for name in study_names() if name != "toy"]


@pytest.fixture
def declarations(tmp_path) -> Path:
    """The declarations of this repository without anything else."""
    root = tmp_path / "workspace"
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / "dvc.yaml").write_text("stages: {}\n")
    return root


def errors(root: Path, slug: str) -> list[str]:
    return [str(problem) for problem in Workspace.load(root).problems([slug]) if not problem.warning]


def everything(root: Path) -> dict[Path, bytes | None]:
    kept = (path for path in root.rglob("*") if ".tessera" not in path.parts)
    return {path: path.read_bytes() if path.is_file() else None for path in kept}


@pytest.mark.parametrize("study", REAL_STUDIES)
def test_in_every_study_what_is_written_is_valid_and_says_what_is_left(declarations, study):
    draft = start_paper(declarations, "brand-new", study=study, title="A Brand New Paper")
    assert errors(declarations, "brand-new") == []
    paper = Workspace.load(declarations).paper("brand-new")
    assert (paper.title, paper.study, paper.seeds) == ("A Brand New Paper", study, (0, 1, 2))
    assert "small" in paper.profiles
    left = placeholders(declarations, "brand-new")
    text = (declarations / draft.files[0]).read_text()
    assert len(left) == text.count(FILL_IN) > 5
    assert all(problem.warning and problem.line for problem in left)
    assert len(draft.next_steps()) == 5


@pytest.mark.parametrize("study", REAL_STUDIES)
def test_stub_and_test_are_well_formed_and_stand_where_the_house_puts_them(declarations, study):
    _, stub, test = start_paper(declarations, "brand-new", study=study).files
    assert test == f"tests/{Path(stub).parent}/test_{Path(stub).name}"
    assert stub.startswith("components/")
    assert (REPOSITORY / Path(stub).parent).is_dir()
    for path in (stub, test):
        ast.parse((declarations / path).read_text())
    ruff = [sys.executable, "-m", "ruff"]
    files = [str(declarations / path) for path in (stub, test)]
    config = ["--no-cache", "--config", str(REPOSITORY / "pyproject.toml")]
    subprocess.run([*ruff, "check", *config, *files], check=True, cwd=REPOSITORY)
    subprocess.run([*ruff, "format", "--check", *config, *files], check=True, cwd=REPOSITORY)


def test_title_family_and_study_come_from_the_catalogue(declarations):
    entries = Workspace.load(declarations).catalogue
    papers = {path.parent.name for path in declarations.glob("params/*/paper.yaml")}
    slug = next(name for name, entry in entries.items() if entry.study in REAL_STUDIES and name not in papers)
    start_paper(declarations, slug)
    paper, entry = Workspace.load(declarations).paper(slug), entries[slug]
    assert (paper.title, paper.family, paper.study) == (entry.title, entry.family, entry.study)


def test_the_component_is_chosen_by_the_study_and_the_arm_names_it(declarations):
    draft = start_paper(declarations, "sign-codes", study="image-tokenizer", component="quantizer")
    assert draft.files[1] == "components/quantizers/sign_codes.py"
    assert draft.chosen
    method = Workspace.load(declarations).paper("sign-codes").arms["method"]
    assert method.parameters == {"quantizer": "sign_codes"}
    assert "build = vq.build" in (declarations / draft.files[1]).read_text()


def test_where_a_study_lists_its_components_the_steps_say_where_to_add_the_new_one(declarations):
    closed = [name for name in REAL_STUDIES if not any(option.free for option in components_of(load_study(name)))]
    assert "decoding" in closed
    draft = start_paper(declarations, "brand-new", study="decoding")
    assert not draft.chosen
    assert "choices of `tokenizer` in the study's params.py" in draft.next_steps()[1]


def test_a_study_without_components_of_its_own_gets_the_stub_beside_the_analyses(tmp_path):
    root = make_workspace(tmp_path, papers=1, bases=0)
    draft = start_paper(root, "toy-new", study="toy")
    assert draft.files[1] == "components/analysis/toy_new.py"
    assert draft.like == "toy-0"
    assert errors(root, "toy-new") == []


def test_a_study_without_papers_can_be_started_too(tmp_path):
    root = make_workspace(tmp_path, papers=0, bases=0)
    assert start_paper(root, "toy-new", study="toy").like == ""
    assert errors(root, "toy-new") == []


@pytest.mark.parametrize(
    "slug, options, words",
    [
        ("one-d-piece", {}, "is in params/ already"),
        ("schema", {"study": "decoding"}, "is in params/ already"),
        ("One_D Piece", {"study": "decoding"}, "Did you mean 'one-d-piece'"),
        ("-", {"study": "decoding"}, "expected lower-case words"),
        ("brand-new", {}, "--study must say which"),
        ("brand-new", {"study": "image-tokenizer", "component": "quantiser"}, "Did you mean 'quantizer'"),
        ("brand-new", {"study": "image-tokenizer", "like": "one-d-peace"}, "Did you mean 'one-d-piece'"),
        ("brand-new", {"study": "image-tokenizer", "like": "tokenization-bias"}, "expected one of"),
    ],
)
def test_what_cannot_be_started_is_said_and_leaves_nothing_behind(declarations, slug, options, words):
    before = everything(declarations)
    with pytest.raises(CannotStartPaper, match=words):
        start_paper(declarations, slug, **options)
    assert everything(declarations) == before


def test_a_misspelled_study_is_recognised(declarations):
    with pytest.raises(UnknownStudy, match="Did you mean 'decoding'"):
        start_paper(declarations, "brand-new", study="decodin")


def test_the_catalogue_is_not_contradicted(declarations):
    entry = Workspace.load(declarations).catalogue["byte-probabilities"]
    other = next(name for name in REAL_STUDIES if name != entry.study)
    shutil.rmtree(declarations / "params" / "byte-probabilities", ignore_errors=True)
    with pytest.raises(CannotStartPaper, match="leave --study away"):
        start_paper(declarations, "byte-probabilities", study=other)
    with pytest.raises(CannotStartPaper, match="leave --title away"):
        start_paper(declarations, "byte-probabilities", title="Another Title")


def test_a_study_that_is_only_in_the_catalogue_is_said_to_be_missing(declarations):
    write(declarations, "params/catalogue.yaml", "x: {title: X, family: text, kind: method, study: not-built}\n")
    with pytest.raises(CannotStartPaper, match="which is not built yet"):
        start_paper(declarations, "x")


def test_a_component_of_that_name_is_left_as_it_is(declarations):
    write(declarations, "components/quantizers/brand_new.py", "mine = 1\n")
    before = everything(declarations)
    with pytest.raises(CannotStartPaper, match="exists already"):
        start_paper(declarations, "brand-new", study="image-tokenizer", component="quantizer")
    assert everything(declarations) == before


def test_a_draft_that_would_not_be_valid_is_taken_back_whole(declarations, monkeypatch):
    monkeypatch.setattr("flows.scaffold._first_test", lambda *_: {"metric": "nonsense", "arm": "method", "above": 0})
    before = everything(declarations)
    with pytest.raises(CannotStartPaper, match=r"nothing was written(.|\n)*nonsense"):
        start_paper(declarations, "brand-new", study="image-tokenizer")
    assert everything(declarations) == before


def test_a_disk_that_fails_half_way_leaves_nothing_behind(declarations, monkeypatch):
    from flows import scaffold

    written = []

    def fail_at_the_second(path, content):
        if written:
            raise OSError("no space left")
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(scaffold, "write_bytes", fail_at_the_second)
    before = everything(declarations)
    with pytest.raises(OSError, match="no space left"):
        start_paper(declarations, "brand-new", study="image-tokenizer")
    assert everything(declarations) == before


def test_the_property_test_fails_until_the_equation_is_there_and_then_tells_right_from_wrong(tmp_path, monkeypatch):
    root = make_workspace(tmp_path, papers=1, bases=0)
    _, stub, test = start_paper(root, "toy-new", study="toy").files
    monkeypatch.setattr(components.analysis, "__path__", [str((root / stub).parent)])

    def run() -> str:
        sys.modules.pop("components.analysis.toy_new", None)
        vars(components.analysis).pop("toy_new", None)
        spec = importlib.util.spec_from_file_location("test_toy_new", root / test)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.test_it_is_the_equation_of_the_paper(0)
        except (AssertionError, pytest.fail.Exception) as error:
            return str(error)
        return "passes"

    assert "Write the paper's equation into `definition`" in run()
    text = (root / test).read_text()
    start, end = text.index("    pytest.fail("), text.index("\n\n\n@pytest")
    write(root, test, text[:start] + "    return torch.stack([v * v for v in x.flatten()]).view(x.shape)" + text[end:])
    assert "not close" in run()
    write(root, stub, (root / stub).read_text().replace("    return x\n", "    return x.square()  # the equation\n"))
    assert run() == "passes"


def test_no_paper_of_this_repository_waits_for_a_fact():
    slugs = Workspace.load(REPOSITORY).slugs
    assert [str(problem) for slug in slugs for problem in placeholders(REPOSITORY, slug)] == []


def test_the_command_prints_the_five_next_steps_and_validate_lists_what_is_left(declarations):
    python = (sys.executable, "-m", "flows.cli")
    said = command(declarations, *python, "new", "brand-new", "--study", "image-tokenizer").stdout
    assert [f"{number}. " in said for number in range(1, 6)] == [True] * 5
    assert "tessera verify brand-new" in said
    listed = command(declarations, *python, "validate").stdout
    assert "params/brand-new/paper.yaml:3: warning: title: still to be filled in: the paper's title" in listed
    refused = command(declarations, *python, "new", "brand-new", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is in params/ already" in refused.stderr
    assert "Traceback" not in refused.stderr
