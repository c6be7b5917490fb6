"""Scenes of shapes: pixels against brute force, facts against pixels."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from PIL import Image

from components.data import parquet, shapes

AREAS = {
    # Area over the square of the radius.
    "circle": math.pi,
    "square": 1.6**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "diamond": 2.0,
    "hexagon": 3 * math.sqrt(3) / 2,
    "cross": 4 * 0.95 * 0.32 * 2 - (2 * 0.32) ** 2,
    "ring": math.pi * (1 - 0.55**2),
    "star": math.sqrt(3),
}


def one(shape: str, *, centre=(24.25, 23.5), size: str = "large", side: int = 48) -> shapes.Scenes:
    """One scene: a red object on black."""
    return shapes.Scenes(
        count=np.array([1]),
        shape=np.array([[shapes.SHAPES.index(shape)]]),
        colour=np.array([[0]]),
        size=np.array([[list(shapes.SIZES).index(size)]]),
        centre=np.array([[centre]], np.float32),
        background=np.array([0]),
        side=side,
    )


def cover(scenes: shapes.Scenes) -> np.ndarray:
    """How much of each pixel the object covers, read back from the red channel, (S, S)."""
    pictures, _ = shapes.render(scenes)
    ground, colour = shapes.BACKGROUNDS["black"][0], shapes.COLOURS["red"][0]
    return (pictures[0, :, :, 0].astype(float) - ground) / (colour - ground)


def inside(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Which points lie in a shape, from its corners alone (even-odd rule), not from distances."""
    turn = lambda count, phase: [  # noqa: E731
        (r * math.cos(phase + 2 * math.pi * k / count), r * math.sin(phase + 2 * math.pi * k / count))
        for k in range(count)
    ]
    if shape == "circle":
        return np.hypot(x, y) <= r
    if shape == "ring":
        return (np.hypot(x, y) <= r) & (np.hypot(x, y) >= 0.55 * r)
    up, down = turn(3, -math.pi / 2), turn(3, math.pi / 2)
    corners = {
        "square": [_rectangle(0.8 * r, 0.8 * r)],
        "triangle": [up],
        "diamond": [turn(4, 0)],
        "hexagon": [turn(6, 0)],
        "star": [up, down],
        "cross": [_rectangle(0.32 * r, 0.95 * r), _rectangle(0.95 * r, 0.32 * r)],
    }[shape]
    return np.any([_in_polygon(polygon, x, y) for polygon in corners], axis=0)


def _rectangle(half_width: float, half_height: float) -> list[tuple[float, float]]:
    return [(sx * half_width, sy * half_height) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def _in_polygon(corners, x, y):
    odd = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return odd


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_the_cover_of_pixels_is_that_of_sixteen_by_sixteen_samples(shape, size):
    scenes = one(shape, size=size)
    (x0, y0), radius, fine = scenes.centre[0, 0], float(scenes.radius[0, 0]), 16
    steps = (np.arange(scenes.side * fine) + 0.5) / fine
    samples = inside(shape, steps[None, :] - x0, steps[:, None] - y0, radius)
    expected = samples.reshape(scenes.side, fine, scenes.side, fine).mean((1, 3))
    error = np.abs(cover(scenes) - expected)
    # A linear ramp over one pixel is exact for upright edges and off by at most 1/8 for slanted ones; corners more.
    assert error.max() < 0.3
    assert error.sum() < 0.06 * expected.sum()


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_the_covered_area_is_the_shapes_area(shape):
    scenes = one(shape, side=64, centre=(32.0, 31.75))
    assert cover(scenes).sum() == pytest.approx(AREAS[shape] * float(scenes.radius[0, 0]) ** 2, rel=0.03)


@pytest.fixture(scope="module")
def drawn():
    return shapes.draw(np.random.default_rng(3), 600, side=32, objects=(1, 4), unseen=False)


def test_objects_do_not_touch_each_other_or_the_border(drawn):
    for row in range(len(drawn.count)):
        count = drawn.count[row]
        centre, radius = drawn.centre[row, :count], drawn.radius[row, :count]
        assert (centre - radius[:, None] >= 0).all()
        assert (centre + radius[:, None] <= 32).all()
        for i in range(count):
            for j in range(i):
                assert math.dist(centre[i], centre[j]) >= radius[i] + radius[j]


def test_objects_of_a_scene_differ_and_counts_shapes_colours_and_sizes_all_occur(drawn):
    for row in range(len(drawn.count)):
        pairs = list(zip(drawn.shape[row, : drawn.count[row]], drawn.colour[row, : drawn.count[row]], strict=True))
        assert len(set(pairs)) == len(pairs)
    assert set(drawn.count) == {1, 2, 3, 4}
    present = drawn.present
    assert set(drawn.shape[present]) == set(range(8)) == set(drawn.colour[present])
    assert set(drawn.size[present]) == {0, 1, 2}


def test_held_out_pairs_are_one_colour_per_shape_and_one_shape_per_colour():
    shape, colour = np.divmod(np.arange(64), 8)
    pairs = list(zip(*np.divmod(np.flatnonzero(shapes.held_out(shape, colour)), 8), strict=True))
    assert sorted(pair[0] for pair in pairs) == sorted(pair[1] for pair in pairs) == list(range(8))


@pytest.mark.parametrize("unseen", [False, True])
def test_held_out_pairs_are_shown_only_where_asked_and_then_in_every_scene(unseen):
    scenes = shapes.draw(np.random.default_rng(0), 400, side=32, objects=(1, 3), unseen=unseen)
    shown = shapes.held_out(scenes.shape, scenes.colour) & scenes.present
    assert (shown.any(1) == unseen).all()


def test_boxes_are_the_extent_of_the_masks_and_masks_lie_on_their_objects(drawn):
    pictures, masks = shapes.render(drawn)
    found = shapes.boxes(masks, drawn.shape.shape[1])
    palette = list(shapes.COLOURS.values())
    for row in range(0, 600, 7):
        for index in range(drawn.count[row]):
            rows, columns = np.nonzero(masks[row] == index + 1)
            assert found[row, index].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            full = pictures[row][masks[row] == index + 1]
            assert (full == palette[drawn.colour[row, index]]).all(1).any()
    assert set(np.unique(masks)) == {0, 1, 2, 3, 4}


def test_too_many_objects_are_refused():
    with pytest.raises(shapes.ShapesError, match="ask for fewer objects"):
        shapes.draw(np.random.default_rng(0), 4, side=32, objects=(30, 30), unseen=False)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(shapes.ShapesError, match=r"unknown splits \['dev'\]"):
        shapes.generate(tmp_path, side=32, objects=(1, 2), seed=0, scenes={"dev": 1})


def test_crowded_scenes_of_six_find_their_places():
    scenes = shapes.draw(np.random.default_rng(0), 64, side=48, objects=(6, 6), unseen=False)
    assert (scenes.count == 6).all()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shapes")
    shapes.generate(directory, side=32, objects=(1, 3), seed=5, scenes={"train": 300, "combinations": 40})
    return parquet.read(directory / "shapes.parquet")


def test_a_caption_names_every_object_and_the_relation_that_holds(table):
    for row in table.rows(named=True):
        for thing in row["objects"]:
            assert f"a {thing['size']} {thing['colour']} {thing['shape']}" in row["caption"]
        assert row["caption"].endswith(f"on a {row['background']} background")
        if len(row["objects"]) == 2:
            first, second = row["objects"]
            holds = {
                "left of": first["x"] < second["x"],
                "right of": first["x"] > second["x"],
                "above": first["y"] < second["y"],
                "below": first["y"] > second["y"],
            }
            (said,) = [relation for relation in holds if f" {relation} " in row["caption"]]
            assert holds[said]


def test_pictures_and_masks_are_png_files_of_the_declared_side(table):
    for column, mode in (("image", "RGB"), ("mask", "L")):
        image = Image.open(io.BytesIO(table[column][0]))
        assert (image.size, image.mode) == ((32, 32), mode)


def test_more_scenes_begin_with_the_fewer_and_other_seeds_differ(table, tmp_path):
    shapes.generate(tmp_path, side=32, objects=(1, 3), seed=5, scenes={"train": 1100})
    more = parquet.read(tmp_path / "shapes.parquet")
    assert more[:300].equals(table.filter(split="train"))
    assert more["image"].n_unique() == 1100
    assert more["scene"].to_list() == list(range(1100))
    shapes.generate(tmp_path, side=32, objects=(1, 3), seed=6, scenes={"train": 300})
    assert not parquet.read(tmp_path / "shapes.parquet")["image"].equals(more["image"][:300])


def test_another_process_writes_the_same_bytes(tmp_path):
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = "side=48, objects=(1, 3), seed=1, scenes={'test': 20}"
        code = f"from pathlib import Path; from components.data import shapes; shapes.generate(Path('.'), {arguments})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / name)
        written.append((tmp_path / name / "shapes.parquet").read_bytes())
    assert written[0] == written[1]


def test_validation_and_test_scenes_are_not_those_of_training(tmp_path):
    shapes.generate(tmp_path, side=32, objects=(2, 3), seed=0, scenes={"train": 200, "validation": 200, "test": 200})
    frame = parquet.read(tmp_path / "shapes.parquet")
    assert frame["image"].n_unique() == frame.filter(pl.col("split").is_in(["train", "validation", "test"])).height
