"""What a paper's file may say, and what is said about it when it says something else."""

from __future__ import annotations

import copy
import random
import re

import pytest
import yaml
from paper_faults import PAPER, RELATIONAL_FAULTS, STRUCTURAL_FAULTS
from workspace import edit, make_workspace, write

from flows.declarations.document import read_document
from flows.declarations.problems import DeclarationError
from flows.declarations.workspace import Workspace
from flows.declarations.yaml_text import yaml_text


@pytest.fixture
def root(tmp_path):
    make_workspace(tmp_path, papers=0)
    write(tmp_path, "params/toy-0/paper.yaml", PAPER)
    return tmp_path


def said(root):
    return [str(problem) for problem in Workspace.load(root).problems()]


def line_in(text, where):
    """Find the line of a dotted key by PyYAML's own nodes."""
    node, line = yaml.compose(text), 1
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", where):
        if index:
            node = node.value[int(index)]
            line = node.start_mark.line + 1
            continue
        pair = next(pair for pair in node.value if pair[0].value == key)
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def test_a_sound_paper_has_no_problems_and_is_read_whole(root):
    assert said(root) == []
    paper = Workspace.load(root).paper("toy-0")
    kinds = [test.kind for test in paper.claims[0].tests]
    assert kinds == [
        "threshold", "difference", "ratio", "ratio", "equality", "equality", "monotone", "correlation", "correlation",
        "all_of",
    ]  # fmt: skip
    assert paper.claims[0].tests[2].over == "mean"
    assert paper.profiles["full"].expect == {"parameters": 124e6}
    assert paper.canonical == "plain"
    assert list(paper.arms_of("small-sample")) == ["mean", "borrowed"]


@pytest.mark.parametrize("old, new, words", STRUCTURAL_FAULTS + RELATIONAL_FAULTS)
def test_each_fault_is_named_with_file_line_and_remedy(root, old, new, words):
    edit(root, "params/toy-0/paper.yaml", old, new)
    found = said(root)
    fitting = [problem for problem in found if words in problem]
    assert fitting, found
    for problem in Workspace.load(root).problems():
        assert problem.line == line_in((root / "params/toy-0/paper.yaml").read_text(), problem.where)


def test_all_faults_of_a_paper_are_reported_together(root):
    faults = [
        ("family: text", "family: txt"),
        ("rule: median}\n  b", "rule: medain}\n  b"),
        ("{steps: 5,", "{stesp: 5,"),
        ("minutes: 1", "minutes: soon"),
        ("arm: fixed, below", "arm: fixt, below"),
        ("minus: mean, above: -3", "minus: mean"),
        ("equals_arm: median", "equals_arm: medan"),
        ("scope: full-only", "scope: full"),
        ("why: time", "wyh: time"),
        ("with: count", "with: cuont"),
    ]
    for old, new in faults:
        edit(root, "params/toy-0/paper.yaml", old, new)
    found = "\n".join(said(root))
    for part in (
        "family:", "arms.median.rule:", "variants.small-sample.stesp:", "profiles.small.minutes:",
        "gates[0].arm:", "tests[1]:", "tests[5].equals_arm:", "claims[1].scope:", "deviations[0].wyh:",
        "tests[8].with:",
    ):  # fmt: skip
        assert part in found


def test_nothing_is_said_twice_and_lines_ascend(root):
    edit(root, "params/toy-0/paper.yaml", "steps: 50", "steps: 0")
    edit(root, "params/toy-0/paper.yaml", "{steps: 4}", "{steps: no}")
    found = said(root)
    assert len(found) == len(set(found)) == 2
    assert found == sorted(found, key=lambda problem: int(problem.split(":")[1]))


def test_an_arm_that_names_its_own_seeds_may_be_judged_with_fewer(root):
    edit(root, "params/toy-0/paper.yaml", "{says: the mean}", "{says: the mean, seeds: [0, 1]}")
    edit(root, "params/toy-0/paper.yaml", "{uses: mean,", "{uses: mean, seeds: [0],")
    assert said(root) == []


def test_a_paper_agrees_with_the_catalogue(root):
    write(root, "params/catalogue.yaml", "toy-0: {title: Toy!, family: text, kind: method, study: toy}\n")
    assert said(root) == [
        "params/toy-0/paper.yaml:2: title: expected 'Toy!' as in params/catalogue.yaml, got 'Toy'."
    ]  # fmt: skip


def test_a_paper_that_cannot_be_used_is_refused_with_every_structural_fault(root):
    edit(root, "params/toy-0/paper.yaml", "family: text", "family: txt")
    edit(root, "params/toy-0/paper.yaml", "equals: 50, within: 0", "equals: 50")
    with pytest.raises(DeclarationError) as raised:
        Workspace.load(root).paper("toy-0")
    assert len(raised.value.problems) == 2


STRANGE = [None, True, 0, -1, 1.5, "", "x", [], ["x"], [None], {}, {"x": 1}, {"arms": []}, [[[]]], 10**30]


def _mutated(value, generator):
    """Replace, remove, rename or add something at a random place."""
    value = copy.deepcopy(value)
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return value
        key = generator.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and generator.random() < 0.75:
            node = node[key]
            continue
        action = generator.randrange(4)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        elif action == 2 and isinstance(node, dict):
            node["extra"] = generator.choice(STRANGE)
        else:
            node[key] = generator.choice(STRANGE)
        return value


def test_no_mutilation_of_a_paper_ends_in_anything_but_placed_problems(root):
    start = read_document(root, "params/toy-0/paper.yaml", "a paper").data
    generator = random.Random(0)
    complained = 0
    for _ in range(250):
        value = start
        for _ in range(generator.choice([1, 1, 2, 4])):
            value = _mutated(value, generator)
        text = yaml_text(value)
        write(root, "params/toy-0/paper.yaml", text)
        found = Workspace.load(root).problems()
        for problem in found:
            assert problem.path == "params/toy-0/paper.yaml"
            assert 1 <= problem.line <= text.count("\n")
            assert problem.message.endswith((".", "?")), problem
            assert "Input should" not in problem.message, problem
        complained += bool(found)
    assert complained > 180
