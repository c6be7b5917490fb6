"""Which params module a stage's parameters come from."""

from __future__ import annotations

import importlib
import textwrap

import pytest

from flows.declarations import study as studies
from flows.declarations.study import StudyError, load_study, own_params, params_module

SHARED = """
from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams
class TrainParams(StudyParams):
    steps: int = 1
class EvaluateParams(TrainParams):
    items: int = 1
METRICS = {"loss": Metric("nats", "lower", "A loss.")}
"""
OWN = """
from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams
class TrainParams(StudyParams):
    trees: int = 1
class EvaluateParams(TrainParams):
    leaves: int = 1
METRICS = {"accepted": Metric("tokens", "higher", "Tokens.")}
def components(params, kind):
    return ("components.errors",)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A study `toy-study` with a paper `own-paper` that has parameters of its own."""
    folder = tmp_path / "toy_study"
    (folder / "own_paper").mkdir(parents=True)
    (folder / "plain_paper").mkdir()
    for path in (folder, folder / "own_paper", folder / "plain_paper"):
        (path / "__init__.py").touch()
    (folder / "params.py").write_text(textwrap.dedent(SHARED))
    (folder / "own_paper" / "params.py").write_text(textwrap.dedent(OWN))
    package = importlib.import_module("flows.studies")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    load_study.cache_clear()
    yield folder
    load_study.cache_clear()
    for name in [name for name in __import__("sys").modules if name.startswith("flows.studies.toy_study")]:
        del __import__("sys").modules[name]


def test_a_paper_with_parameters_of_its_own_has_them_instead_of_the_studys(toy):
    assert list(load_study("toy-study").evaluate_params.model_fields) == ["steps", "items"]
    own = load_study("toy-study", "own-paper")
    assert list(own.evaluate_params.model_fields) == ["trees", "leaves"]
    assert own.components(own.evaluate_params(), "evaluate") == ("components.errors",)
    assert sorted(own.metrics) == ["accepted", "loss"]


def test_other_papers_of_the_study_keep_its_parameters(toy):
    assert params_module("toy-study", "plain-paper") == "flows.studies.toy_study.params"
    assert load_study("toy-study", "plain-paper").train_params is load_study("toy-study").train_params
    assert own_params("toy-study") == ["own-paper"]


def test_a_metric_keeps_its_meaning_within_a_study(toy):
    (toy / "own_paper" / "params.py").write_text(OWN.replace('"accepted"', '"loss"'))
    with pytest.raises(StudyError, match="'loss'"):
        studies.load_study("toy-study", "own-paper")
