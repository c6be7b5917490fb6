"""The data sets of scenes of shapes: tables of pictures, masks, depth, captions and questions, every fact known.

`components.data.scenes` draws the scenes; here they become rows. One row is one scene, a function of the world, the
seed, the split and the scene's number, except that questions are balanced over blocks of 1,024 scenes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data import parquet, png
from components.data.scenes import captions, descriptions, questions
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.rendering import Rendered, render
from components.data.scenes.sampling import Scenes, draw
from components.data.scenes.world import SPLITS, Q, ScenesError, World
from components.errors import did_you_mean

# Questions are balanced over a block: a larger data set begins with the smaller one, and memory stays bounded.
_BLOCK = 1024
_OBJECT = {
    "shape": pl.String,
    "colour": pl.String,
    "fill": pl.String,
    "size": pl.String,
    "x": pl.Float32,
    "y": pl.Float32,
    "radius": pl.Float32,
    "box": pl.Array(pl.Int16, 4),
    "mark_shape": pl.String,
    "mark_colour": pl.String,
}


def generate(
    directory: Path,
    *,
    world: Mapping[str, Any],
    seed: int,
    scenes: Mapping[str, int],
    questions: Mapping[str, Any] | None = None,
) -> None:
    """Write a data set of scenes: `shapes.parquet`, one row per scene.

    Columns: `scene` (number within its split), `split`, `image` (PNG), `mask`, `part` and `depth` (grey PNG, see
    `scenes.rendering.Rendered`), `caption`, `background` (its colour), `texture` (its kind, -1 for none), `objects`
    (shape, colour, fill, size, centre x and y and radius in pixels, box, shape and colour of the mark or empty),
    `sign` (text, empty where there is none, and box), `questions` (type, question, answer) and `world` (JSON, for
    `world_of`).

    Args:
        directory: Where to write.
        world: What may stand in a scene: the attributes of `scenes.world.World`.
        seed: Seed; equal arguments give equal bytes, and more scenes begin with the fewer.
        scenes: Number of scenes of each split, by its name in SPLITS; `combinations` shows what is held out.
        questions: `types` and `each`, as for `scenes.questions.ask`; None for no questions.

    Raises:
        ScenesError: A value does not fit, or so many objects do not fit into a scene.
    """
    described = World.of(world)
    types, each = _asked(questions)
    for split in scenes:
        if split not in SPLITS:
            near = did_you_mean(split, SPLITS)
            raise ScenesError(f"unknown split {split!r}.{near} Expected some of {', '.join(SPLITS)}.")
    tables = []
    for split, total in scenes.items():
        for first in range(0, total, _BLOCK):
            drawn = draw(described, seed, split, np.arange(first, first + _BLOCK))
            tables.append(table(drawn, split, types, each, first).head(total - first))
    parquet.write(pl.concat(tables), directory / "shapes.parquet")


def table(scenes: Scenes, split: str, types: Sequence[str] = (), each: int = 0, first: int = 0) -> pl.DataFrame:
    """Return scenes as rows of the data set, numbered from `first`."""
    rendered, world = render(scenes), scenes.world
    count = len(scenes)
    files = (rendered.pictures, *(pixels[..., None] for pixels in (rendered.masks, rendered.parts, rendered.depths)))
    texts = ["".join(GLYPHS[glyph] for glyph in row) for row in scenes.glyphs.tolist()]
    sign = {"text": np.where(scenes.has_sign, texts, ""), "box": rendered.sign_boxes}
    asked = questions.ask(scenes, types, each).rename({"scene": "row"})
    return pl.DataFrame(
        {
            "scene": np.arange(first, first + count, dtype=np.int32),
            "split": [split] * count,
            **{name: list(png.encode(pixels)) for name, pixels in zip(_IMAGES, files, strict=True)},
            "caption": [captions.caption(described) for described in descriptions.describe(scenes)],
            "background": np.array(world.grounds)[scenes.ground],
            "texture": scenes.texture.astype(np.int8),
            "objects": _nested(_objects(scenes, rendered), count),
            "sign": pl.DataFrame(sign, schema={"text": pl.String, "box": pl.Array(pl.Int16, 4)}).to_struct(),
            "questions": _nested(asked, count),
            "world": [json.dumps(dataclasses.asdict(world))] * count,
        }
    )


def world_of(rows: pl.DataFrame) -> World:
    """Return the world of a data set's scenes, from its column `world`."""
    return World.of(json.loads(rows["world"][0]))


_IMAGES = ("image", "mask", "part", "depth")


def _objects(scenes: Scenes, rendered: Rendered) -> pl.DataFrame:
    """Return one row per object: `row` of its scene, and what is known about it."""
    world = scenes.world
    at = np.nonzero(scenes.present)
    marked = {"mark_shape": "", "mark_colour": ""}
    if world.marks:
        marked["mark_shape"] = np.array(world.shapes)[scenes.mark_shape[at]]
        marked["mark_colour"] = np.array(world.colours)[scenes.mark_colour[at]]
    columns = {
        "shape": np.array(world.shapes)[scenes.shape[at]],
        "colour": np.array(world.colours)[scenes.colour[at]],
        "fill": np.array(world.fills)[scenes.fill[at]],
        "size": np.array(list(world.sizes))[scenes.size[at]],
        "x": (scenes.centre[..., 0][at] / Q).astype(np.float32),
        "y": (scenes.centre[..., 1][at] / Q).astype(np.float32),
        "radius": (scenes.radius[at] / Q).astype(np.float32),
        "box": rendered.boxes[at],
        **marked,
    }
    return pl.DataFrame(columns, schema=_OBJECT).insert_column(0, pl.Series("row", at[0]))


def _nested(rows: pl.DataFrame, count: int) -> pl.Series:
    """Gather rows by their column `row`, sorted, into one list for each of 0 .. count - 1."""
    fields = pl.struct(pl.all().exclude("row")).alias("fields")
    grouped = rows.select("row", fields).group_by("row", maintain_order=True).agg("fields")
    every = pl.DataFrame({"row": np.arange(count)}).join(grouped, on="row", how="left", maintain_order="left")
    return every["fields"].fill_null([])


def _asked(questions: Mapping[str, Any] | None) -> tuple[tuple[str, ...], int]:
    if questions is None:
        return (), 0
    if set(questions) != {"types", "each"}:
        raise ScenesError(f"questions has {sorted(questions)}; expected types (a list) and each (a number).")
    return tuple(questions["types"]), questions["each"]
