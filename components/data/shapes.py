"""Scenes of coloured shapes with captions, boxes and masks: pictures whose every fact is known.

Letters: `B` scenes, `K` objects of a scene (at most), `N` objects of all scenes, `S` side of a scene in pixels.
Positions are in pixels from the top left corner, x to the right, y down; the centre of the first pixel is (0.5, 0.5).

Eight shapes in eight colours and three sizes stand without overlap on a plain background. One shape-colour pair per
shape and per colour is held out: no scene of the splits `train`, `validation` and `test` shows one, every scene of
`combinations` does, so that a model has seen each shape and each colour but not the pair.

Only additions, multiplications, square roots and comparisons are used, so that pixels are equal on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet, png
from components.errors import TesseraError

SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "cross", "ring", "star")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
    "purple": (140, 60, 180),
    "cyan": (60, 200, 210),
    "orange": (245, 140, 30),
    "pink": (245, 150, 190),
}
SIZES = {"small": 0.10, "medium": 0.14, "large": 0.18}
BACKGROUNDS = {"black": (15, 15, 15), "grey": (128, 128, 128), "white": (240, 240, 240), "brown": (95, 65, 40)}
SPLITS = ("train", "validation", "test", "combinations")

# Scenes are drawn in blocks with generators of their own: a larger data set begins with the smaller one, and memory
# stays bounded.
_BLOCK = 1024
# Free pixels between the outlines of two objects, and between an outline and the border of the scene.
_GAP = 1.0
_ATTEMPTS = 1200
_RESTART = 12
_HALF_SQRT3 = 0.8660254037844386
_OBJECT_SCHEMA = {
    "shape": pl.String,
    "colour": pl.String,
    "size": pl.String,
    "x": pl.Float32,
    "y": pl.Float32,
    "radius": pl.Float32,
    "box": pl.Array(pl.Int16, 4),
}


class ShapesError(TesseraError):
    """Scenes that cannot be drawn as asked."""


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes; entries of absent objects (index >= count) are meaningless.

    Attributes:
        count: Objects of each scene, int (B,).
        shape: Index into SHAPES, int (B, K).
        colour: Index into COLOURS, int (B, K).
        size: Index into SIZES, int (B, K).
        centre: x and y in pixels, float32 (B, K, 2).
        background: Index into BACKGROUNDS, int (B,).
        side: S.
    """

    count: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    centre: np.ndarray
    background: np.ndarray
    side: int

    @property
    def radius(self) -> np.ndarray:
        """Radius of the circle around each object in pixels, float32 (B, K)."""
        return np.array(list(SIZES.values()), np.float32)[self.size] * np.float32(self.side)

    @property
    def present(self) -> np.ndarray:
        """Which objects exist, bool (B, K)."""
        return np.arange(self.shape.shape[1]) < self.count[:, None]


def held_out(shape: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return which shape-colour pairs are held out: one colour per shape, one shape per colour."""
    return (shape + colour) % len(SHAPES) == 0


def draw(generator: np.random.Generator, count: int, *, side: int, objects: tuple[int, int], unseen: bool) -> Scenes:
    """Draw scenes at random.

    Shape, colour and size are uniform (among the allowed, distinct pairs), and so are the number of objects, places
    and backgrounds. An object that touches or equals an earlier one is drawn again, so that crowded scenes have
    smaller objects.

    Args:
        generator: Source of randomness.
        count: B.
        side: S.
        objects: Least and greatest number of objects.
        unseen: The first object of every scene has a held-out pair; otherwise none has.

    Raises:
        ShapesError: So many objects do not fit into a scene.
    """
    most = objects[1]
    numbers = generator.integers(objects[0], most + 1, count)
    background = generator.integers(0, len(BACKGROUNDS), count)
    shape, colour, size = (np.zeros((count, most), np.int64) for _ in range(3))
    scenes = Scenes(numbers, shape, colour, size, np.zeros((count, most, 2), np.float32), background, side)
    wrong = scenes.present
    for attempt in range(_ATTEMPTS):
        scene, index = np.nonzero(wrong)
        _draw_objects(generator, scenes, scene, index, unseen)
        rows = np.unique(scene)
        wrong[rows] = _misplaced(scenes, rows)
        if not wrong.any():
            return scenes
        if attempt % _RESTART == _RESTART - 1:
            # The first objects may have left no room for the others.
            wrong |= wrong.any(1, keepdims=True) & scenes.present
    raise ShapesError(
        f"{wrong.any(1).sum()} of {count} scenes of {side} pixels found no place for {objects[0]} to {most} objects in "
        f"{_ATTEMPTS} attempts; ask for fewer objects."
    )


def _draw_objects(generator, scenes: Scenes, scene: np.ndarray, index: np.ndarray, unseen: bool) -> None:
    """Draw the objects (scene, index) anew, in place."""
    shape = generator.integers(0, len(SHAPES), len(scene))
    # A step of 1 .. 7 from the held-out colour gives the allowed colours of a shape, 0 the held-out one.
    step = generator.integers(1, len(COLOURS), len(scene))
    if unseen:
        step[index == 0] = 0
    scenes.shape[scene, index] = shape
    scenes.colour[scene, index] = (step - shape) % len(COLOURS)
    scenes.size[scene, index] = generator.integers(0, len(SIZES), len(scene))
    margin = scenes.radius[scene, index][:, None] + np.float32(_GAP)
    place = generator.random((len(scene), 2), np.float32) * (scenes.side - 2 * margin) + margin
    # Quarters of a pixel are exact in binary and still show every phase of anti-aliasing.
    scenes.centre[scene, index] = np.round(place * 4) / 4


def _misplaced(scenes: Scenes, rows: np.ndarray) -> np.ndarray:
    """Return which objects of the scenes `rows` equal or touch an earlier one, bool (len(rows), K)."""
    present, radius, centre = scenes.present[rows], scenes.radius[rows], scenes.centre[rows]
    pair = scenes.shape[rows] * len(COLOURS) + scenes.colour[rows]
    apart = ((centre[:, :, None] - centre[:, None, :]) ** 2).sum(-1)
    least = radius[:, :, None] + radius[:, None, :] + np.float32(_GAP)
    clash = (pair[:, :, None] == pair[:, None, :]) | (apart < least**2)
    clash &= present[:, :, None] & present[:, None, :]
    return np.tril(clash, -1).any(2)


def render(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Draw the pixels.

    A pixel's cover by an object is `clip(1/2 - d, 0, 1)` with d the signed distance of its centre to the outline.

    Returns:
        Pictures, uint8 (B, S, S, 3), and masks, uint8 (B, S, S): 0 where the background is, 1 + index of the object
        that covers at least half of the pixel elsewhere.
    """
    side = scenes.side
    batch, which = np.nonzero(scenes.present)
    shape, radius = scenes.shape[batch, which], scenes.radius[batch, which]
    cover = np.empty((len(batch), side, side), np.float32)
    grid = np.arange(side, dtype=np.float32) + np.float32(0.5)
    x = grid[None, None, :] - scenes.centre[batch, which, 0][:, None, None]
    y = grid[None, :, None] - scenes.centre[batch, which, 1][:, None, None]
    for index, name in enumerate(SHAPES):
        rows = shape == index
        distance = _DISTANCES[name](x[rows], y[rows], radius[rows][:, None, None])
        cover[rows] = np.clip(np.float32(0.5) - distance, 0, 1)
    palette = np.array(list(COLOURS.values()), np.float32)
    pictures = np.empty((len(scenes.count), side, side, 3), np.float32)
    pictures[:] = np.array(list(BACKGROUNDS.values()), np.float32)[scenes.background][:, None, None]
    masks = np.zeros((len(scenes.count), side, side), np.uint8)
    for index in range(scenes.shape.shape[1]):
        rows = which == index
        scene, alpha = batch[rows], cover[rows][..., None]
        colour = palette[scenes.colour[scene, index]][:, None, None]
        pictures[scene] += alpha * (colour - pictures[scene])
        masks[scene] = np.where(cover[rows] >= 0.5, np.uint8(index + 1), masks[scene])
    return np.round(pictures).astype(np.uint8), masks


def boxes(masks: np.ndarray, most: int) -> np.ndarray:
    """Return the smallest box around each object's mask, int16 (B, K, 4): left, top, right, bottom (half-open)."""
    found = masks[:, None] == np.arange(1, most + 1, dtype=np.uint8)[:, None, None]
    columns, rows = found.any(2), found.any(3)
    side = masks.shape[-1]
    left, top = columns.argmax(-1), rows.argmax(-1)
    right, bottom = side - columns[..., ::-1].argmax(-1), side - rows[..., ::-1].argmax(-1)
    return np.stack([left, top, right, bottom], -1).astype(np.int16)


def captions(scenes: Scenes) -> list[str]:
    """Describe each scene in words: its objects, the relation of two, and the background."""
    grounds = list(BACKGROUNDS)
    shapes, colours, sizes = list(SHAPES), list(COLOURS), list(SIZES)
    described = []
    columns = (scenes.count, scenes.shape, scenes.colour, scenes.size, scenes.centre, scenes.background)
    for count, shape, colour, size, centre, ground in zip(*(column.tolist() for column in columns), strict=True):
        things = [f"a {sizes[size[k]]} {colours[colour[k]]} {shapes[shape[k]]}" for k in range(count)]
        if count == 2:
            text = f"{things[0]} {_relation(*centre[:2])} {things[1]}"
        else:
            text = " and ".join(filter(None, [", ".join(things[:-1]), things[-1]]))
        described.append(f"{text} on a {grounds[ground]} background")
    return described


def _relation(first: list[float], second: list[float]) -> str:
    across, down = first[0] - second[0], first[1] - second[1]
    if abs(across) >= abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def generate(directory: Path, *, side: int, objects: tuple[int, int], seed: int, scenes: Mapping[str, int]) -> None:
    """Write the data set `shapes`: `shapes.parquet`, one row per scene.

    Columns: `scene` (number within its split), `split`, `image` (PNG), `mask` (grey PNG, see `render`), `caption`,
    `background` and `objects` (shape, colour, size, centre x and y, radius, box).

    Args:
        directory: Where to write.
        side: S, in pixels.
        objects: Least and greatest number of objects of a scene.
        seed: Seed; equal arguments give equal bytes, and more scenes begin with the fewer.
        scenes: Number of scenes of each split, by its name in SPLITS.

    Raises:
        ShapesError: A split is unknown, or so many objects do not fit.
    """
    if strangers := set(scenes) - set(SPLITS):
        raise ShapesError(f"unknown splits {sorted(strangers)}; expected some of {', '.join(SPLITS)}.")
    tables = []
    for split, total in scenes.items():
        for block in range(0, total, _BLOCK):
            generator = np.random.default_rng([seed, SPLITS.index(split), block // _BLOCK])
            drawn = draw(generator, _BLOCK, side=side, objects=tuple(objects), unseen=split == "combinations")
            tables.append(_table(drawn, split, block).head(total - block))
    parquet.write(pl.concat(tables), directory / "shapes.parquet")


def _table(scenes: Scenes, split: str, first: int) -> pl.DataFrame:
    pictures, masks = render(scenes)
    batch, which = np.nonzero(scenes.present)
    objects = pl.DataFrame(
        {
            "shape": np.array(SHAPES)[scenes.shape[batch, which]],
            "colour": np.array(list(COLOURS))[scenes.colour[batch, which]],
            "size": np.array(list(SIZES))[scenes.size[batch, which]],
            "x": scenes.centre[batch, which, 0],
            "y": scenes.centre[batch, which, 1],
            "radius": scenes.radius[batch, which],
            "box": boxes(masks, scenes.shape.shape[1])[batch, which],
        },
        schema=_OBJECT_SCHEMA,
    )
    grouped = (
        objects.select(pl.struct(pl.all()).alias("objects"), pl.Series("scene", batch))
        .group_by("scene", maintain_order=True)
        .agg("objects")
    )
    count = len(scenes.count)
    return pl.DataFrame(
        {
            "scene": np.arange(first, first + count, dtype=np.int32),
            "split": [split] * count,
            "image": list(png.encode(pictures)),
            "mask": list(png.encode(masks[..., None])),
            "caption": captions(scenes),
            "background": np.array(list(BACKGROUNDS))[scenes.background],
        }
    ).with_columns(grouped["objects"])


# Signed distance to the outline in pixels, negative inside; x and y are relative to the centre, r is the radius of the
# circle around the shape. For polygons it is the greatest distance to a side's line, exact near the sides.


def _circle(x, y, r):
    return np.sqrt(x * x + y * y) - r


def _square(x, y, r):
    return np.maximum(abs(x), abs(y)) - r * np.float32(0.8)


def _triangle(x, y, r):
    return np.maximum(y, np.float32(_HALF_SQRT3) * abs(x) - np.float32(0.5) * y) - r * np.float32(0.5)


def _diamond(x, y, r):
    return (abs(x) + abs(y) - r) * np.float32(0.7071067811865476)


def _hexagon(x, y, r):
    flat = np.float32(_HALF_SQRT3)
    return np.maximum(flat * abs(x) + np.float32(0.5) * abs(y), abs(y)) - r * flat


def _cross(x, y, r):
    along, across = r * np.float32(0.95), r * np.float32(0.32)
    upright = np.maximum(abs(x) - across, abs(y) - along)
    level = np.maximum(abs(x) - along, abs(y) - across)
    return np.minimum(upright, level)


def _ring(x, y, r):
    away = np.sqrt(x * x + y * y)
    return np.maximum(away - r, r * np.float32(0.55) - away)


def _star(x, y, r):
    return np.minimum(_triangle(x, y, r), _triangle(x, -y, r))


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "hexagon": _hexagon,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}
