"""Which layer's value a stage is given."""

from __future__ import annotations

import itertools

import pytest
from workspace import make_workspace, write

from flows.declarations.problems import DeclarationError
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace

PAPER = """\
slug: toy-0
title: Toy
family: text
study: toy
story: A story.
seeds: [0, 1, 2]
variants:
  plain: {{canonical: true{variant}}}
arms:
  owner: {{spread: 7.0, rule: median}}
  own: {{says: own{arm}}}
  borrowed: {{uses: owner}}
profiles:
  smoke: {{pause: 0.0{smoke}}}
  small: {{pause: 0.0{small}}}
  full: {{pause: 0.0{full}}}
claims: [{{id: a, says: b, cites: c, scope: full-only, needs: d}}]
"""
LAYERS = ("small", "full", "variant", "arm", "smoke")
VALUE = {"small": 11, "full": 12, "variant": 13, "arm": 14, "smoke": 15}
DEFAULT = 20


def paper(tmp_path, present=()):
    make_workspace(tmp_path, papers=0)
    parts = {layer: f", steps: {VALUE[layer]}" if layer in present else "" for layer in LAYERS}
    write(tmp_path, "params/toy-0/paper.yaml", PAPER.format(**parts))
    return Workspace.load(tmp_path).paper("toy-0")


@pytest.mark.parametrize("present", [set(c) for n in range(6) for c in itertools.combinations(LAYERS, n)])
def test_the_latest_layer_that_sets_a_value_wins(tmp_path, present):
    declared = paper(tmp_path, present)
    order = {
        "small": ["arm", "variant", "small"],
        "full": ["arm", "variant", "full"],
        "smoke": ["smoke", "arm", "variant", "small"],
    }
    for profile, layers in order.items():
        expected = next((VALUE[layer] for layer in layers if layer in present), DEFAULT)
        for kind in ("train", "evaluate"):
            assert resolve(declared, "plain", "own", profile, kind).steps == expected


def test_a_training_is_told_nothing_about_its_evaluation(tmp_path):
    declared = paper(tmp_path)
    train, evaluate = (resolve(declared, "plain", "owner", "small", kind) for kind in ("train", "evaluate"))
    assert not hasattr(train, "rule")
    assert evaluate.rule == "median"
    assert train.model_dump().items() <= evaluate.model_dump().items()


def test_an_arm_that_uses_a_model_is_told_how_it_was_trained_but_evaluates_its_own_way(tmp_path):
    borrowed = resolve(paper(tmp_path), "plain", "borrowed", "small", "evaluate")
    assert (borrowed.spread, borrowed.rule) == (7.0, "mean")


def test_overrides_come_last_for_all_arms_or_for_one(tmp_path):
    declared = paper(tmp_path, {"arm", "smoke"})
    values = {"steps": 99, "arms.owner.spread": 2, "grid": [8]}
    own = resolve(declared, "plain", "own", "smoke", "evaluate", values)
    owner = resolve(declared, "plain", "owner", "smoke", "evaluate", values)
    assert (own.steps, own.spread, own.grid) == (99, 1.0, (8,))
    assert (owner.steps, owner.spread, owner.grid) == (99, 2.0, (8,))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("stesp", 3, "--set stesp: 'stesp' is no parameter of study toy; expected one of steps, "),
        ("stesp", 3, "Did you mean 'steps'?"),
        ("arms.onw.steps", 3, "'onw' is no arm of toy-0. Did you mean 'own'?"),
        ("arms.own", 3, "'' is no parameter of study toy"),
        ("steps", "many", "--set steps: expected a whole number, got the text 'many'"),
        ("steps", 0, "expected a number of at least 1, got 0"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path, key, value, words):
    with pytest.raises(DeclarationError) as raised:
        resolve(paper(tmp_path), "plain", "own", "small", "train", {key: value})
    assert words in str(raised.value)


def test_a_wrong_value_is_placed_where_it_was_set(tmp_path):
    make_workspace(tmp_path, papers=0)
    parts = dict.fromkeys(LAYERS, "") | {"variant": ", steps: 0"}
    write(tmp_path, "params/toy-0/paper.yaml", PAPER.format(**parts))
    with pytest.raises(DeclarationError, match=r"^params/toy-0/paper\.yaml:8: variants\.plain\.steps: expected"):
        resolve(Workspace.load(tmp_path).paper("toy-0"), "plain", "own", "small", "train")
