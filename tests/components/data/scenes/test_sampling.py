"""Scenes: nothing touches, nothing repeats, nothing held out is shown, everything else is uniform."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scene_worlds import DESCRIBED, WORLDS

from components.data.scenes.sampling import draw, sign_size
from components.data.scenes.world import ScenesError, World

NAMES = list(WORLDS)


@pytest.fixture(scope="module", params=NAMES)
def scenes(request):
    return draw(WORLDS[request.param], 3, "train", np.arange(400))


def circles(scenes, row):
    """Centres and radii of a scene's objects in pixels."""
    count = scenes.count[row]
    return scenes.centre[row, :count] / 4, scenes.radius[row, :count] / 4


def test_objects_touch_neither_each_other_nor_the_border(scenes):
    gap = 0 if scenes.world.grid else 1
    for row in range(len(scenes)):
        centre, radius = circles(scenes, row)
        assert (centre - radius[:, None] >= gap).all()
        assert (centre + radius[:, None] <= scenes.world.side - gap).all()
        for i in range(len(centre)):
            for j in range(i):
                assert math.dist(centre[i], centre[j]) >= radius[i] + radius[j] + gap


def test_signs_lie_inside_and_touch_no_object(scenes):
    if not scenes.world.sign:
        return  # a world without signs
    width, height = sign_size(scenes.world)
    for row in np.flatnonzero(scenes.has_sign):
        left, top = scenes.sign_at[row]
        assert left >= 0
        assert top >= 0
        assert left + width <= scenes.world.side
        assert top + height <= scenes.world.side
        for (x, y), radius in zip(*circles(scenes, row), strict=True):
            away = math.hypot(max(left - x, 0, x - left - width), max(top - y, 0, y - top - height))
            if scenes.world.grid:
                cell = scenes.world.side // scenes.world.grid
                assert (left // cell, top // cell) != (x // cell, y // cell)
            else:
                assert away >= radius + 1


def test_objects_of_a_grid_stand_in_different_cells(scenes):
    if not scenes.world.grid:
        return  # a world without a grid
    cell = scenes.world.side / scenes.world.grid
    for row in range(len(scenes)):
        centre, radius = circles(scenes, row)
        cells = (centre // cell).tolist()
        assert len({tuple(place) for place in cells}) == len(cells)
        assert (abs(centre % cell - cell / 2) <= cell / 2 - radius[:, None]).all()


def test_objects_of_a_scene_differ(scenes):
    for row in range(len(scenes)):
        count = scenes.count[row]
        shape, colour = scenes.shape[row, :count].tolist(), scenes.colour[row, :count].tolist()
        assert len(set(zip(shape, colour, strict=True))) == count
        if scenes.world.distinct:
            assert len(set(shape)) == len(set(colour)) == count
        if scenes.world.marks:
            assert (scenes.mark_colour[row, :count] != colour).all()


@pytest.mark.parametrize("name", [name for name in NAMES if WORLDS[name].held_out])
@pytest.mark.parametrize("split", ["train", "validation", "test", "combinations"])
def test_held_out_combinations_are_in_every_scene_of_their_split_and_in_no_other(name, split):
    scenes = draw(WORLDS[name], 0, split, np.arange(2000))
    held = WORLDS[name].held_out_table[scenes.shape, scenes.colour, scenes.size] & scenes.present
    assert (held.sum(1) == (split == "combinations")).all()


def test_the_unseen_object_stands_anywhere_in_the_list_and_every_held_out_combination_occurs():
    world = WORLDS["signs-48"]
    scenes = draw(world, 0, "combinations", np.arange(6000))
    held = world.held_out_table[scenes.shape, scenes.colour, scenes.size] & scenes.present
    rows, place = np.nonzero(held)
    for count in range(2, 7):
        places = np.bincount(place[scenes.count[rows] == count], minlength=count)
        assert (abs(places / places.sum() - 1 / count) < 0.07).all()
    kinds = {tuple(kind) for kind in np.stack([scenes.shape[held], scenes.colour[held], scenes.size[held]], 1)}
    assert kinds == {tuple(kind) for kind in np.argwhere(world.held_out_table)}


def uniform(values: np.ndarray, options: int) -> None:
    """Assert that values are uniform over 0 .. options - 1, within five standard deviations."""
    counts = np.bincount(values, minlength=options)
    expected = len(values) / options
    assert len(counts) == options
    assert (abs(counts - expected) <= 5 * (expected * (1 - 1 / options)) ** 0.5).all(), counts


@pytest.mark.parametrize("name", ["plain-32", "signs-48", "crowded-32"])
def test_counts_sizes_backgrounds_and_glyphs_are_uniform_whatever_fits_more_easily(name):
    scenes = draw(WORLDS[name], 1, "train", np.arange(6000))
    world, present = scenes.world, scenes.present
    uniform(scenes.count - world.objects[0], world.objects[1] - world.objects[0] + 1)
    uniform(scenes.ground, len(world.grounds))
    full = scenes.count == world.objects[1]
    if world.held_out == "pairs":
        # Crowded scenes have no smaller objects than others.
        uniform(scenes.size[full, 0], len(world.sizes))
        uniform(scenes.shape[present], len(world.shapes))
        uniform(scenes.colour[present], len(world.colours))
    if world.sign:
        uniform(scenes.glyphs[:, 1], world.sign.alphabet)
        assert abs(scenes.has_sign.mean() - 0.5) < 5 * 0.5 / len(scenes) ** 0.5
    if world.texture:
        uniform(scenes.texture, 16)


def test_places_reach_every_part_of_a_scene():
    scenes = draw(WORLDS["plain-32"], 1, "train", np.arange(6000))
    alone = scenes.count == 1
    for size, radius in enumerate(scenes.world.radii):
        own = scenes.centre[alone & (scenes.size[:, 0] == size), 0]
        assert own.min() == radius + 4
        assert own.max() == 32 * 4 - radius - 4
        assert abs(own.mean() - 64) < 5 * own.std() / len(own) ** 0.5 / 2**0.5


def test_a_scene_is_a_function_of_its_number_alone():
    world = WORLDS["signs-48"]
    many, few = draw(world, 2, "test", np.arange(300)), draw(world, 2, "test", np.array([205, 3]))
    for name in ("count", "shape", "colour", "size", "centre", "ground", "texture", "phase", "glyphs", "sign_at"):
        assert (getattr(many, name)[[205, 3]] == getattr(few, name)).all(), name
        assert (getattr(many.at(np.array([205, 3])), name) == getattr(few, name)).all(), name


@pytest.mark.parametrize("other", [(3, "train"), (2, "validation"), (2, "test")])
def test_seeds_and_splits_have_scenes_of_their_own(other):
    world = WORLDS["plain-32"]
    one, two = draw(world, 2, "train", np.arange(500)), draw(world, *other, np.arange(500))
    assert (one.centre[:, 0] == two.centre[:, 0]).all(1).mean() < 0.02
    assert abs((one.shape[:, 0] == two.shape[:, 0]).mean() - 1 / 8) < 0.08


def test_a_crowd_that_does_not_fit_is_refused_with_numbers():
    world = World.of(DESCRIBED["plain-32"] | {"objects": [16, 16], "sizes": {"large": 5.75}})
    with pytest.raises(ScenesError, match=r"found no place for 16 to 16 objects .* ask for fewer or smaller objects"):
        draw(world, 0, "train", np.arange(2))


@pytest.mark.parametrize(
    ("change", "split", "reason"),
    [
        ({}, "dev", "unknown split 'dev'"),
        ({"held_out": None}, "combinations", "this world holds out nothing"),
        ({"sign": {"length": 4}, "side": 24, "sizes": {"a": 2.0}}, "train", "does not fit into scenes of 24 pixels"),
        ({"sign": {"length": 2}, "grid": 4, "sizes": {"a": 2.0}}, "train", "does not fit into a cell of 8 pixels"),
        ({"grid": 3, "sizes": {"a": 2.0}}, "train", "has no grid of 3 x 3 cells"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, split, reason):
    with pytest.raises(ScenesError, match=reason):
        draw(World.of(DESCRIBED["plain-32"] | change), 0, split, np.arange(4))


def test_distinct_objects_that_leave_only_held_out_pairs_are_refused():
    world = World.of(
        DESCRIBED["plain-32"]
        | {"shapes": ["circle", "square"], "colours": ["red", "green"], "distinct": True, "objects": [2, 2]}
    )
    # Of two shapes and two colours each shape keeps one colour: exactly one scene of two is left, so that it is found.
    scenes = draw(world, 0, "train", np.arange(20))
    assert not (world.held_out_table[scenes.shape, scenes.colour, scenes.size]).any()
    blocked = replace(world)
    object.__setattr__(blocked, "held_out_table", np.array([[[True], [False]], [[True], [False]]]).repeat(3, 2))
    with pytest.raises(ScenesError, match="leave no combination that is not held out"):
        draw(blocked, 0, "train", np.arange(4))
