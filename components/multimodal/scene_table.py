"""Scenes as networks read them: pictures, what every patch shows, captions, and questions with their answers.

Letters: `N` scenes, `H W` pixels, `P` patches of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.data import png, tables
from components.data.scenes import captions
from components.data.scenes import questions as scene_questions
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.world import World
from components.data.shapes import world_of
from components.errors import TesseraError
from components.multimodal.patch_labels import patch_labels

_COLUMNS = ("image", "mask", "caption", "objects", "sign", "questions", "world")
_BLOCK = 4096
DENSE = "read"
"""The type of question that needs the finest detail; all others are called general."""


class SceneTableError(TesseraError):
    """A data set holds no scenes of the kind that is needed."""


@dataclass(frozen=True)
class SceneTable:
    """Some scenes of a split.

    Attributes:
        pictures: uint8 (N, 3, H, W).
        labels: Class of every attribute for every patch, uint8 (N, P, 6); see `patch_labels`.
        captions: Caption of each scene.
        questions: `row` of the scene, `type`, `question`, `answer`; sorted by row.
        world: What may stand in the scenes.
    """

    pictures: Tensor
    labels: Tensor
    captions: list[str]
    questions: pl.DataFrame
    world: World

    def __len__(self) -> int:
        return len(self.pictures)


def read_scenes(directory: Path, split: str, count: int, patch_size: int, first: int = 0) -> SceneTable:
    """Read `count` scenes of a split from the scene `first` on; fewer where there are not as many.

    Args:
        directory: A data set of `components.data.shapes` with questions.
        split: Name of the split.
        count: Scenes.
        patch_size: Side of the patches that are labelled, pixels.
        first: Scenes of the split that are left out before.

    Raises:
        SceneTableError: The split is empty, its scenes have no questions, or patches do not divide them.
    """
    rows = tables.read_split(directory, split, _COLUMNS).slice(first, count)
    if not len(rows) or not rows["questions"].list.len().sum():
        raise SceneTableError(
            f"{directory} has {len(rows)} scenes in split {split!r} and no questions about them; expected scenes with "
            "questions, such as those of shapes-48."
        )
    world = world_of(rows)
    if world.side % patch_size:
        raise SceneTableError(f"patches of {patch_size} pixels do not divide scenes of {world.side}; choose a divisor.")
    parts = [_pixels(part, world, patch_size) for part in rows.iter_slices(_BLOCK)]
    asked = rows.select(pl.int_range(pl.len()).alias("row"), "questions").explode("questions").drop_nulls()
    return SceneTable(
        torch.cat([pictures for pictures, _ in parts]),
        torch.cat([labels for _, labels in parts]),
        rows["caption"].to_list(),
        asked.unnest("questions"),
        world,
    )


def vocabulary_of(table: SceneTable) -> list[str]:
    """Return every word that captions, questions and answers of a world can have, sorted."""
    types = table.questions["type"].unique().to_list()
    return sorted({*scene_questions.vocabulary(table.world, types), *captions.vocabulary(table.world)})


def _pixels(rows: pl.DataFrame, world: World, patch_size: int) -> tuple[Tensor, Tensor]:
    pictures = torch.from_numpy(np.moveaxis(png.decode(rows["image"].to_list()), 3, 1).copy())
    masks = png.decode(rows["mask"].to_list())[..., 0]
    sign = rows["sign"].struct
    length = world.sign.length if world.sign else 1
    signs = np.full((len(rows), length), -1, np.int64)
    texts = sign.field("text").to_list()
    shown = [row for row, text in enumerate(texts) if text]
    if shown:
        signs[shown] = [[GLYPHS.index(glyph) for glyph in texts[row]] for row in shown]
    boxes = sign.field("box").to_numpy().astype(np.int64)
    codes, centres = _objects(rows, world)
    labels = patch_labels(masks, codes, centres, signs, boxes, patch_size)
    return pictures, torch.from_numpy(labels)


def _objects(rows: pl.DataFrame, world: World) -> tuple[np.ndarray, np.ndarray]:
    """Return codes of shape, colour and size, int64 (N, K, 3), and pixels of centres, int64 (N, K, 2), -1 for none."""
    codes = np.zeros((len(rows), world.objects[1], 3), np.int64)
    centres = np.full((len(rows), world.objects[1], 2), -1, np.int64)
    each = rows.select(pl.int_range(pl.len()).alias("row"), "objects").explode("objects").drop_nulls()
    each = each.with_columns(pl.int_range(pl.len()).over("row").alias("index")).unnest("objects")
    names = {"shape": world.shapes, "colour": world.colours, "size": tuple(world.sizes)}
    at = (each["row"].to_numpy(), each["index"].to_numpy())
    for position, (name, known) in enumerate(names.items()):
        codes[(*at, position)] = each[name].cast(pl.Enum(list(known))).to_physical().to_numpy()
    centres[at] = each.select("x", "y").to_numpy().astype(np.int64)
    return codes, centres
