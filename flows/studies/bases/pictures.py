"""The images of a base that codes images, from any of the data sets that hold some."""

from __future__ import annotations

import torch
from torch import Tensor

from components.data import tables
from components.data.images import decode_images, photograph_tiles, random_flip
from components.errors import TesseraError
from flows.studies.context import StageContext


class PictureError(TesseraError):
    """A recipe was given no data set, or more than one."""


def pictures(stage: StageContext, split: str, side: int, count: int) -> Tensor:
    """Return the first `count` images of a split of the base's one data set, uint8 (B, 3, side, side).

    Photographs are cut into tiles of that side; other images have it.

    Raises:
        PictureError: The base names no data set or several, or its images have another side.
    """
    folders = {name.removeprefix("data/"): path for name, path in stage.inputs.items() if name.startswith("data/")}
    if len(folders) != 1:
        raise PictureError(f"{stage.paper} has data {sorted(folders) or 'none'}; expected one data set of images.")
    ((name, folder),) = folders.items()
    files = tables.read_split(folder, split, ["image"])["image"]
    if name == "photos":
        return photograph_tiles(files.to_list(), side)[0][:count]
    images = decode_images(files.head(count).to_list())
    if images.shape[-1] != side or images.shape[-2] != side:
        raise PictureError(
            f"{name} has images of {images.shape[-1]} x {images.shape[-2]} pixels, image_side is {side}; "
            "set it to match."
        )
    return images


def drawn_from(images: Tensor, batch_size: int):
    """Return `draw_batch` of the training loop: images drawn with replacement and mirrored at random."""

    def draw_batch(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(images), (batch_size,), generator=generator)
        return random_flip(images[rows], generator)

    return draw_batch
