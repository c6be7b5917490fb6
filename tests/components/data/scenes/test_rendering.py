"""Pixels against brute force: covers from corners by the even-odd rule, facts from masks, signs read back."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_worlds import DESCRIBED, WORLDS

from components.data.scenes import glyphs, textures
from components.data.scenes.rendering import BODY, GROUND, INK, MARK, PLATE, SIGN, glyph_boxes, render
from components.data.scenes.sampling import draw
from components.data.scenes.stamps import FULL, stamps
from components.data.scenes.world import COLOURS, GROUNDS, SHAPES, ScenesError, World

SIN, COS = math.sin(2 * math.pi / 5), math.cos(2 * math.pi / 5)
AREAS = {
    # Area over the square of the radius.
    "circle": math.pi,
    "square": 1.4**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "cross": 2 * (2 * 0.94) * (2 / 3) - (2 / 3) ** 2,
    # Ten triangles from the centre to a tip (1) and a notch (r), 36 degrees apart.
    "star": 5 * COS / math.cos(math.pi / 5) * math.sin(math.pi / 5),
    "ring": math.pi * (1 - 0.55**2),
    "diamond": 2.0,
    "bar": 1.86 * 0.7,
}


def turn(count: int, phase: float, radius: float = 1.0) -> list[tuple[float, float]]:
    return [
        (radius * math.cos(phase + 2 * math.pi * k / count), radius * math.sin(phase + 2 * math.pi * k / count))
        for k in range(count)
    ]


def rectangle(half_width: float, half_height: float) -> list[tuple[float, float]]:
    return [(sx * half_width, sy * half_height) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points lie in a shape of radius 1, from its corners alone."""
    if shape == "circle":
        return np.hypot(x, y) <= 1
    if shape == "ring":
        return (np.hypot(x, y) <= 1) & (np.hypot(x, y) >= 0.55)
    notch = COS / math.cos(math.pi / 5)
    star = [
        corner for pair in zip(turn(5, -math.pi / 2), turn(5, -0.3 * math.pi, notch), strict=True) for corner in pair
    ]
    corners = {
        "square": [rectangle(0.7, 0.7)],
        "triangle": [turn(3, -math.pi / 2)],
        "diamond": [turn(4, 0)],
        "star": [star],
        "cross": [rectangle(1 / 3, 0.94), rectangle(0.94, 1 / 3)],
        "bar": [rectangle(0.93, 0.35)],
    }[shape]
    return np.any([in_polygon(polygon, x, y) for polygon in corners], axis=0)


def in_polygon(corners, x, y):
    odd = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return odd


@cache
def rendered(name: str, count: int = 300):
    scenes = draw(WORLDS[name], 7, "train", np.arange(count))
    return scenes, render(scenes)


def one(shape: str, radius: float = 5.75, *, at=(97, 95), side: int = 48, **world):
    """One scene: a red object on black, its centre in quarters of a pixel."""
    described = {"side": side, "objects": [1, 1], "sizes": {"only": radius}, "shapes": [shape], "held_out": None}
    world = World.of({**described, "colours": ["red"], "grounds": ["black"], **world})
    return replace(draw(world, 0, "train", np.arange(1)), centre=np.array([[at]]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [2.5, 5.75, 11.0])
def test_covers_are_those_of_samples_tested_against_the_corners(shape, radius):
    quarters = int(radius * 4)
    atlas = stamps((shape,), quarters)
    for down, across in ((0, 0), (1, 3), (2, 2)):
        at = (np.arange(atlas.width * 8) + 0.5) / 8
        x = (at[None, :] - radius - across / 4) / radius
        y = (at[:, None] - radius - down / 4) / radius
        # Samples on an edge fall to either side in floating point; a shape a little smaller or larger decides.
        cover, nearly = atlas.cover[0, down, across], 1e-4
        for scale, holds in ((1 + nearly, cover.__ge__), (1 - nearly, cover.__le__)):
            if shape == "ring":
                found = (np.hypot(x, y) <= 1 / scale) & (np.hypot(x, y) >= 0.55 * scale)
            else:
                found = inside(shape, x * scale, y * scale)
            assert holds(found.reshape(atlas.width, 8, atlas.width, 8).sum((1, 3))).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [2.5, 5.75, 11.0])
def test_no_shape_leaves_its_circle_and_every_shape_reaches_it(shape, radius):
    quarters = int(radius * 4)
    atlas = stamps((shape,), quarters)
    at = np.arange(atlas.width)
    for down, across in ((0, 0), (3, 1)):
        # Distance of each pixel's nearest and farthest point to the centre.
        low = [
            np.maximum(0, np.maximum(at - radius - shift / 4, radius + shift / 4 - at - 1)) for shift in (down, across)
        ]
        assert not atlas.cover[0, down, across][np.hypot(low[0][:, None], low[1]) > radius].any()
        assert atlas.cover[0, down, across][np.hypot(low[0][:, None], low[1]) > radius - 1.5].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_covered_area_is_the_shapes_area(shape):
    cover = stamps((shape,), 80).cover[0, 1, 2] / FULL
    assert cover.sum() == pytest.approx(AREAS[shape] * 20**2, rel=0.01)


@pytest.mark.parametrize("shape", ["circle", "square", "cross", "ring", "diamond", "bar"])
def test_upright_shapes_are_symmetric(shape):
    # At a phase of 2 with an odd number of quarters, or 0 with a whole number of pixels, the stamp is centred.
    cover = stamps((shape,), 24).cover[0, 2, 2]
    assert (cover == cover[::-1]).all()
    assert (cover == cover[:, ::-1]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_moved_by_whole_pixels_is_the_same_picture_moved(shape):
    here, there = render(one(shape)), render(one(shape, at=(97 + 4 * 9, 95 - 4 * 6)))
    assert (here.pictures[0, 6:, :-9] == there.pictures[0, :-6, 9:]).all()


def test_pixels_are_mixed_from_ground_and_colour_by_the_cover():
    for shape in SHAPES:
        atlas = stamps((shape,), 23)
        scenes = one(shape)
        left, top = (scenes.centre[0, 0] - 23) // 4
        cover = atlas.cover[0, (95 - 23) % 4, (97 - 23) % 4].astype(int)
        share = np.zeros((48, 48), int)
        share[top : top + atlas.width, left : left + atlas.width] = cover
        red, black = np.array(COLOURS["red"]), np.array(GROUNDS["black"])
        expected = np.floor((black * (64 - share[..., None]) + red * share[..., None]) / 64 + 0.5)
        assert (render(scenes).pictures[0] == expected).all()


@pytest.mark.parametrize("name", WORLDS)
def test_boxes_are_the_extent_of_the_masks(name):
    scenes, pixels = rendered(name)
    for row in range(len(scenes)):
        for index in range(scenes.count[row]):
            y, x = np.nonzero(pixels.masks[row] == index + 1)
            expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert pixels.boxes[row, index].tolist() == expected
        y, x = np.nonzero(pixels.masks[row] == SIGN)
        if scenes.has_sign[row] and not scenes.world.grid:
            assert pixels.sign_boxes[row].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        else:
            assert scenes.has_sign[row] or (not len(x) and not pixels.sign_boxes[row].any())
    assert set(np.unique(pixels.masks)) <= {0, SIGN, *range(1, scenes.world.objects[1] + 1)}


@pytest.mark.parametrize("name", WORLDS)
def test_masks_and_parts_name_what_the_pixels_show(name):
    scenes, pixels = rendered(name)
    world = scenes.world
    bare = render(replace(scenes, world=replace(world, marks=False)))
    for row in range(0, len(scenes), 3):
        ground = world.ground_palette[scenes.ground[row]].astype(int)
        for index in range(scenes.count[row]):
            own = pixels.masks[row] == index + 1
            for part, colour, pictures in (
                (BODY, scenes.colour, bare.pictures),
                (MARK, scenes.mark_colour, pixels.pictures),
            ):
                shown = pictures[row][own & (pixels.parts[row] == part)].astype(int)
                full = world.palette[colour[row, index]].astype(int)
                away = np.minimum(abs(shown - full).sum(1), abs(shown - full * textures.SHADE // 8).sum(1))
                # What a pixel of a body is mixed with is the ground, of a mark the body.
                below = ground if part == BODY else world.palette[scenes.colour[row, index]].astype(int)
                assert (away <= abs(shown - below).sum(1) + 6 * world.texture + 3).all()
        assert ((pixels.parts[row] == GROUND) == (pixels.masks[row] == 0)).all()
        assert ((pixels.parts[row] >= PLATE) == (pixels.masks[row] == SIGN)).all()


def test_pixels_of_the_background_are_the_ground_alone_wherever_nothing_is_near():
    scenes, pixels = rendered("plain-32")
    ground = scenes.world.ground_palette[scenes.ground][:, None, None]
    changed = (pixels.pictures != ground).any(3)
    y, x = np.indices((32, 32)) + 0.5
    for row in range(len(scenes)):
        away = np.full((32, 32), np.inf)
        for (cx, cy), radius in zip(scenes.centre[row, : scenes.count[row]] / 4, scenes.radius[row] / 4, strict=False):
            away = np.minimum(away, np.hypot(x - cx, y - cy) - radius)
        assert not changed[row][away > 1].any()


def test_marks_lie_inside_their_bodies():
    scenes, pixels = rendered("marks-64")
    bare = render(replace(scenes, world=replace(scenes.world, marks=False)))
    assert (bare.masks == pixels.masks).all()
    assert (bare.parts == (pixels.masks > 0) * BODY).all()
    for row in range(len(scenes)):
        for index in range(scenes.count[row]):
            own = pixels.masks[row] == index + 1
            assert 0.06 < (pixels.parts[row][own] == MARK).mean() < 0.5


@pytest.mark.parametrize("name", ["few-32", "signs-48", "cells-24"])
def test_signs_are_read_back_from_pixels_by_the_nearest_glyph(name):
    scenes, pixels = rendered(name)
    grey = pixels.pictures.astype(int).sum(3)
    for row in np.flatnonzero(scenes.has_sign):
        for position, (left, top, right, bottom) in enumerate(glyph_boxes(pixels.sign_boxes[row])):
            cut = grey[row, top:bottom, left:right]
            dark = cut < (cut.min() + cut.max()) / 2
            # Bare glyphs are bright on dark grounds.
            bright = scenes.world.grid and scenes.world.grounds[scenes.ground[row]] != "white"
            ink = ~dark if bright else dark
            apart = (glyphs.INK[: scenes.world.sign.alphabet] != ink).sum((1, 2))
            assert apart.argmin() == scenes.glyphs[row, position]
            assert apart.min() == 0
            inked = pixels.parts[row, top:bottom, left:right] == INK + position
            assert (inked == glyphs.INK[scenes.glyphs[row, position]]).all()


def test_glyphs_differ_enough_to_be_told_apart():
    apart = (glyphs.INK[:, None] != glyphs.INK[None]).sum((2, 3)) + 99 * np.eye(32, dtype=int)
    assert glyphs.INK.shape == (32, 7, 5)
    assert apart.min() >= 3
    assert apart[:16, :16].min() >= 9
    assert glyphs.INK.any(1).sum(1).min() >= 3


@pytest.mark.parametrize("name", WORLDS)
def test_depth_falls_towards_the_viewer_and_figures_are_as_far_as_their_feet(name):
    scenes, pixels = rendered(name)
    side = scenes.world.side
    for row in range(0, len(scenes), 5):
        depth, mask = pixels.depths[row].astype(int), pixels.masks[row]
        for y in range(side):
            ground = depth[y][mask[y] == 0]
            assert (ground == 255 - y * 255 // (side - 1)).all()
        for value in np.unique(mask[mask > 0]):
            own = mask == value
            foot = np.nonzero(own)[0].max() if value != SIGN else pixels.sign_boxes[row][3] - 1
            assert (depth[own] == 255 - foot * 255 // (side - 1)).all()
        # Nothing is farther than the floor behind it.
        assert (depth <= (255 - np.arange(side) * 255 // (side - 1))[:, None]).all()


def test_textures_deviate_by_their_strength_at_most_and_all_sixteen_differ():
    tiles = textures.tiles()
    assert tiles.shape == (16, 16, 16)
    assert abs(tiles).max() <= textures.LEVELS
    flat = tiles.reshape(16, -1)
    for kind in range(16):
        assert flat[kind].std() > 3
        for other in range(kind):
            assert (flat[kind] != flat[other]).mean() > 0.3
    scenes, pixels = rendered("signs-48")
    ground = scenes.world.ground_palette[scenes.ground][:, None, None].astype(int)
    away = abs(pixels.pictures.astype(int) - ground).max(3)
    # Away from outlines, whose pixels are mixed.
    empty = pixels.masks == 0
    for axis in (1, 2):
        for step in (-1, 1):
            empty &= np.roll(pixels.masks == 0, step, axis)
    assert np.percentile(away[empty], 99.5) <= scenes.world.texture
    assert away[empty].max() > scenes.world.texture / 2


def test_textures_are_coarse():
    # Energy of the Fourier transform at periods below 4 pixels, beside the whole without the mean.
    spectrum = abs(np.fft.fft2(textures.tiles().astype(float))) ** 2
    frequency = np.minimum(np.arange(16), 16 - np.arange(16))
    fine = np.maximum(frequency[:, None], frequency[None, :]) > 4
    spectrum[:, 0, 0] = 0
    assert (spectrum[:, fine].sum(1) / spectrum.sum((1, 2))).max() < 0.35


@pytest.mark.parametrize(("fill", "least", "most"), [("striped", 0.3, 0.7), ("dotted", 0.03, 0.25), ("dark", 1, 1)])
def test_fills_shade_their_share_of_an_object(fill, least, most):
    for shape in ("square", "circle", "triangle"):
        pixels = render(one(shape, fills=[fill]))
        body = pixels.pictures[0][pixels.masks[0] == 1]
        dark = (body == np.array(COLOURS["red"]) * textures.SHADE // 8).all(1).sum()
        bright = (body == COLOURS["red"]).all(1).sum()
        assert least <= dark / (dark + bright) <= most


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(WORLDS)), st.integers(0, 2**31), st.permutations(range(6)))
def test_a_scene_looks_the_same_alone_as_in_a_batch(name, first, order):
    scenes = draw(WORLDS[name], 0, "test", first + np.arange(6))
    whole, shuffled = render(scenes), render(scenes.at(np.array(order)))
    for field in ("pictures", "masks", "parts", "depths", "boxes", "sign_boxes"):
        assert (getattr(whole, field)[order] == getattr(shuffled, field)).all()


def test_later_objects_are_in_front_and_what_leaves_the_scene_is_refused():
    scenes = draw(World.of(DESCRIBED["plain-32"] | {"objects": [2, 2]}), 0, "train", np.arange(1))
    scenes = replace(scenes, size=np.array([[2, 0]]), centre=np.array([[[64, 64], [64, 64]]]))
    assert (render(scenes).masks[0] == 2).any()
    with pytest.raises(ScenesError, match="across the border"):
        render(replace(scenes, centre=np.array([[[64, 64], [64, 8]]])))
    with pytest.raises(ScenesError, match="across the border"):
        render(replace(scenes, centre=np.array([[[64, 64], [125, 64]]])))
