"""Leaderboards are checked against the study they rank before anybody looks at them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from workspace import REPOSITORY, make_workspace, write

from flows.declarations.leaderboards import Leaderboard, Rate
from flows.declarations.workspace import Workspace

BOARD = """
centres:
  title: Centres
  study: toy
  data: numbers
  where: {rule: mean}
  same: [steps]
  rate: {says: numbers seen, unit: numbers, formula: steps * share, unless: {share: spread}}
  metrics: [error]
"""


def problems(tmp_path, text):
    make_workspace(tmp_path)
    write(tmp_path, "params/leaderboards.yaml", text)
    return [str(problem) for problem in Workspace.load(tmp_path).problems() if "leaderboards" in problem.path]


def test_the_repositorys_leaderboards_are_sound():
    workspace = Workspace.load(REPOSITORY)
    assert workspace.leaderboards
    assert [problem for problem in workspace.problems([]) if "leaderboards" in problem.path] == []


@pytest.mark.parametrize(
    "old, new, words",
    [
        (
            "rule: mean",
            "ruel: mean",
            ":6: centres.where.ruel: 'ruel' is no parameter of study toy. Did you mean 'rule'?",
        ),
        ("[steps]", "[step]", ":7: centres.same[0]: 'step' is no parameter of study toy. Did you mean 'steps'?"),
        ("share: spread", "share: sprad", "'sprad' is no parameter of study toy. Did you mean 'spread'?"),
        ("[error]", "[eror]", "study toy declares no metric 'eror'. Did you mean 'error'?"),
        ("study: toy", "study: toi", "'toi' is no study"),
        ("steps * share", "steps share", "is no expression"),
        ("title: Centres", "says: Centres", "'title' is missing"),
    ],
)
def test_a_fault_is_named_with_its_line_and_what_was_meant(tmp_path, old, new, words):
    found = problems(tmp_path, BOARD.replace(old, new))
    assert any(words in problem for problem in found), found


def test_a_data_set_that_does_not_exist_is_the_only_fault_left(tmp_path):
    (found,) = problems(tmp_path, BOARD)
    assert "'numbers' is not in params/data.yaml" in found


def test_a_rate_has_one_source():
    with pytest.raises(ValidationError, match="exactly one of 'metric'"):
        Rate(says="spent", unit="bits")
    with pytest.raises(ValidationError, match="exactly one of 'metric'"):
        Rate(says="spent", unit="bits", metric="bits", formula="k")


def test_a_leaderboard_ranks_by_something():
    with pytest.raises(ValidationError):
        Leaderboard(title="Nothing", study="toy", data="numbers", metrics=())
