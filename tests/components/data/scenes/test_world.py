"""Worlds: what they hold out, and how mistakes are reported."""

from __future__ import annotations

import pytest
from scene_worlds import DESCRIBED, WORLDS

from components.data.scenes.world import ScenesError, World

PLAIN = DESCRIBED["plain-32"]


def test_held_out_pairs_are_at_most_one_colour_of_a_shape_and_one_shape_of_a_colour():
    table = WORLDS["plain-32"].held_out_table
    assert table.shape == (8, 8, 3)
    assert (table.all(2) == table.any(2)).all()
    assert (table[..., 0].sum(0) == 1).all()
    assert (table[..., 0].sum(1) == 1).all()


def test_held_out_triples_are_a_tenth_and_every_pair_is_seen_in_some_size():
    table = WORLDS["signs-48"].held_out_table
    assert 0.08 <= table.mean() <= 0.12
    assert not table.all(2).any()
    for axis in ((1, 2), (0, 2), (0, 1)):
        assert (table.mean(axis) < 0.25).all()


@pytest.mark.parametrize("name", WORLDS)
def test_every_shape_colour_and_size_is_seen_in_training(name):
    seen = ~WORLDS[name].held_out_table
    assert seen.any((1, 2)).all()
    assert seen.any((0, 2)).all()
    assert seen.any((0, 1)).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sides": 32}, r"world has no 'sides'. Did you mean 'side'\?"),
        ({"shapes": ["circle", "sqare"]}, r"shapes has 'sqare'. Did you mean 'square'\?"),
        ({"shapes": []}, "shapes is .*; expected one or more different names"),
        ({"colours": ["red", "red"]}, "expected one or more different names"),
        ({"objects": [0, 3]}, "objects is .*expected two counts"),
        ({"objects": [3, 2]}, "objects is .*expected two counts"),
        ({"sizes": {"small": 3.3}}, "size small has a radius of 3.3 pixels; expected a multiple of 1/4"),
        ({"sizes": {"huge": 17.0}}, "from 1.5 to 16"),
        ({"sizes": {}}, "sizes is empty"),
        ({"side": 4}, "side is 4; expected a whole number from 8 to 256"),
        ({"texture": 0.5}, "texture is 0.5; expected a whole number"),
        ({"marks": True}, "marks need bodies with room inside; leave bar, cross, ring, star out"),
        ({"marks": True, "shapes": ["circle"], "colours": ["red"], "held_out": None}, "marks need a second colour"),
        ({"distinct": True, "objects": [1, 9]}, "9 objects cannot all differ in a world of 8 kinds"),
        ({"held_out": "colours"}, "held_out is 'colours'; expected pairs, triples or null"),
        ({"shapes": ["circle"], "colours": ["red"], "objects": [1, 1]}, "would hide a whole shape, colour or size"),
        ({"grid": 3, "objects": [1, 10], "sizes": {"a": 2.0}}, "10 objects and a sign need more cells than 3 x 3"),
        ({"sign": {"lenght": 3}}, r"world.sign has no 'lenght'. Did you mean 'length'\?"),
        ({"sign": {"alphabet": 40}}, "sign.alphabet is 40; expected a whole number from 2 to 32"),
        ({"sign": {"share": 0.5}}, r"sign.share \(hundredths\) is 0.5"),
    ],
)
def test_a_wrong_world_is_refused_with_its_reason(change, reason):
    with pytest.raises(ScenesError, match=reason):
        World.of(PLAIN | change)


def test_what_is_missing_is_named():
    with pytest.raises(ScenesError, match="world lacks objects, sizes"):
        World.of({"side": 32})
