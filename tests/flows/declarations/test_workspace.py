"""A whole workspace: bases, names across files, cheapness."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from workspace import REPOSITORY, edit, make_workspace, write

from flows.declarations.checks import find_cycle
from flows.declarations.problems import DeclarationError
from flows.declarations.stages import data_stage
from flows.declarations.workspace import NoWorkspace, UnknownDataSet, UnknownPaper, Workspace, find_root


def said(root):
    return [str(problem) for problem in Workspace.load(root).problems()]


def test_a_workspace_of_toy_papers_is_sound(tmp_path):
    root = make_workspace(tmp_path, papers=3, arms=4, variants=2, bases=2)
    assert said(root) == []
    workspace = Workspace.load(root)
    assert workspace.slugs == tuple(workspace.papers) == ("toy-0", "toy-1", "toy-2")
    assert workspace.base_params("constant-1").value == 2.0


def test_an_unknown_paper_is_refused_with_the_nearest_name(tmp_path):
    workspace = Workspace.load(make_workspace(tmp_path))
    with pytest.raises(UnknownPaper, match=r"'toy-9' is not in params/\. Did you mean 'toy-"):
        workspace.paper("toy-9")
    with pytest.raises(UnknownPaper, match=r"'toi-1' is not in params/\. Did you mean 'toy-1'"):
        workspace.problems(["toi-1"])


def test_a_paper_of_the_catalogue_that_is_not_built_is_told_from_an_unknown_one(tmp_path):
    root = make_workspace(tmp_path, papers=0)
    write(root, "params/catalogue.yaml", "karl: {title: K, family: image, kind: method, study: toy}\n")
    with pytest.raises(UnknownPaper, match=r"in the catalogue but not built yet; CONTRIBUTING.md says how"):
        Workspace.load(root).paper("karl")


def test_only_the_papers_asked_for_are_checked(tmp_path):
    root = make_workspace(tmp_path)
    edit(root, "params/toy-0/paper.yaml", "family: text", "family: txt")
    assert Workspace.load(root).problems(["toy-1"]) == []
    assert len(Workspace.load(root).problems(["toy-0"])) == 1


@pytest.mark.parametrize(
    "old, new, words",
    [
        (
            "recipe: toy_constant",
            "recipe: toy_konstant",
            "constant-0.recipe: 'toy_konstant' is no recipe; expected one",
        ),
        ("recipe: toy_constant", "recipe: toy_konstant", "Did you mean 'toy_constant'?"),
        ("recipe: toy_constant", "recipe: os.system", "'os.system' is no recipe"),
        ("value: 1.0", "value: -1", "bases.yaml:6: constant-0.params.value: expected a number above 0, got -1"),
        (
            "value: 1.0",
            "vlaue: 1",
            "constant-0.params.vlaue: unknown key; expected one of value. Did you mean 'value'?",
        ),
        (
            "bases: [constant-0]",
            "bases: [constnat-0]",
            "constant-1.bases[0]: 'constnat-0' is not in params/bases.yaml.",
        ),
        ("bases: []", "bases: [constant-1]", "in a cycle: constant-0 -> constant-1 -> constant-0"),
        ("title: Constant 0", "titel: Constant 0", "constant-0.titel: unknown key; expected one of title, recipe"),
        ("title: Constant 0", "gates: [{metric: x, above: 1, below: 2}]", "constant-0.gates[0]: give exactly one of"),
    ],
)
def test_a_faulty_base_is_named_with_line_and_remedy(tmp_path, old, new, words):
    root = make_workspace(tmp_path, papers=0, bases=2)
    edit(root, "params/bases.yaml", old, new)
    assert any(words in problem for problem in said(root)), said(root)


def test_a_broken_shared_file_is_reported_once_and_does_not_hide_the_papers(tmp_path):
    root = make_workspace(tmp_path, papers=2)
    write(root, "params/bases.yaml", "a: 1\na: 2\n")
    edit(root, "params/toy-0/paper.yaml", "family: text", "family: txt")
    assert [problem.split(": ")[0] for problem in said(root)] == ["params/bases.yaml:2", "params/toy-0/paper.yaml:3"]
    with pytest.raises(DeclarationError):
        Workspace.load(root).bases  # noqa: B018


def test_find_cycle_returns_a_closed_path_exactly_where_there_is_one():
    assert find_cycle({"a": ["b"], "b": ["c"], "c": []}) == []
    assert find_cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["outside"]}) == []
    assert find_cycle({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": ["a"]}) == ["a", "a"]
    assert find_cycle({str(n): [str(n + 1)] for n in range(5000)}) == []


def test_the_root_is_found_from_any_folder_inside_and_from_nowhere_else(tmp_path):
    root = make_workspace(tmp_path / "w")
    write(root, "dvc.yaml", "stages: {}\n")
    assert find_root(root / "params" / "toy-0") == root
    with pytest.raises(NoWorkspace):
        find_root(tmp_path)


def test_declarations_of_this_repository_are_sound():
    errors = [problem for problem in Workspace.load(REPOSITORY).problems() if not problem.warning]
    assert errors == []


def test_every_data_set_of_this_repository_has_a_stage():
    workspace = Workspace.load(REPOSITORY)
    for name in workspace.data:
        stage = data_stage(workspace, name)
        assert (stage.name, stage.output, stage.arguments) == (f"data-{name}", f"data/{name}", ("data", name))
    with pytest.raises(UnknownDataSet):
        data_stage(workspace, "no-such-data")


HEAVY = ("torch", "ray", "prefect", "mlflow", "dvc", "polars", "numpy", "pandas", "matplotlib", "scipy")


def test_reading_and_checking_everything_imports_nothing_heavy():
    source = (
        "import sys; from flows.declarations.workspace import Workspace\n"
        "from flows.declarations.study import load_study, study_names, load_recipe, recipe_names\n"
        "w = Workspace.load('.'); w.problems(); w.data; w.bases; w.catalogue\n"
        "[load_study(name) for name in study_names()]; [load_recipe(name) for name in recipe_names()]\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=True,
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stdout.split() == []


def test_the_workspace_is_read_even_where_nothing_can_be_cached(tmp_path, monkeypatch):
    root = make_workspace(tmp_path, papers=1)
    (root / ".tessera").rmdir()
    (root / ".tessera").write_text("a file where the cache should be")
    assert said(root) == []
    assert Path(root / ".tessera").is_file()
