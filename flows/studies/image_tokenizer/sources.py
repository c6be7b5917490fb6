"""The images of a stage: what is learned from, what is tested on, and the photographs.

Photographs are split by group (photographs of one scene, such as a stereo pair, form one group): a tokenizer that
learned from some of them is tested on groups it has never seen; a tokenizer of another data set is tested on all.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from components.data import tables
from components.data.images import centre_square, decode_images, photograph_tiles
from components.errors import TesseraError
from flows.studies.context import StageContext

_PHOTO_COLUMNS = ["name", "group", "image"]


class ImageSourceError(TesseraError):
    """A data set does not hold what the study needs."""


@dataclass(frozen=True)
class TestImages:
    """Images to test on.

    Attributes:
        images: uint8 (B, 3, H, W).
        labels: Class of each, int64 (B,); None where there are no classes.
        items: Name of each image's sampling unit: the image itself, or the photograph it was cut from.
    """

    images: Tensor
    labels: Tensor | None
    items: list[str]


@dataclass(frozen=True)
class Photographs:
    """Whole photographs to test on.

    Attributes:
        images: uint8 (B, 3, H, W).
        names: Name of each.
        groups: Group of each; the sampling unit.
    """

    images: Tensor
    names: list[str]
    groups: list[str]


def training_images(stage: StageContext) -> Tensor:
    """Return the images to learn from, uint8 (B, 3, H, W)."""
    params = stage.params
    if params.dataset == "photos":
        frame = tables.read_split(stage.inputs["data/photos"], "train", _PHOTO_COLUMNS)
        return _photograph_tiles(frame, params.image_side)[0]
    files = _cifar(stage, "train", params.train_images)["image"].to_list()
    return _of_side(decode_images(files), params.image_side)


def test_images(stage: StageContext, count: int) -> TestImages:
    """Return the first `count` images of the test split."""
    params = stage.params
    if params.dataset == "photos":
        images, groups = _photograph_tiles(_held_out_photos(stage), params.image_side)
        return TestImages(images, None, groups)
    frame = _cifar(stage, "test", count)
    images = _of_side(decode_images(frame["image"].to_list()), params.image_side)
    labels = torch.from_numpy(frame["label"].to_numpy().copy()).long()
    return TestImages(images, labels, [str(row) for row in range(len(images))])


def photographs(stage: StageContext) -> Photographs:
    """Return the photographs that no training saw, centre-cropped and resized to `photo_side`."""
    params = stage.params
    frame = _held_out_photos(stage).head(params.test_photos)
    images = torch.stack([centre_square(file, params.photo_side) for file in frame["image"]])
    return Photographs(images, frame["name"].to_list(), frame["group"].to_list())


def _cifar(stage: StageContext, split: str, count: int) -> pl.DataFrame:
    name = f"data/{stage.params.dataset}"
    if name not in stage.inputs:
        raise ImageSourceError(
            f"dataset is {stage.params.dataset!r}, but the stage was given {', '.join(sorted(stage.inputs))}; add it "
            "to the variant's `data`."
        )
    return tables.read_split(stage.inputs[name], split, ["image", "label"]).head(count)


def _of_side(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] != (side, side):
        raise ImageSourceError(
            f"images are {images.shape[-1]} x {images.shape[-2]} pixels, image_side is {side}; set image_side to match."
        )
    return images


def _held_out_photos(stage: StageContext) -> pl.DataFrame:
    directory = stage.inputs["data/photos"]
    if stage.params.dataset == "photos":
        return tables.read_split(directory, "test", _PHOTO_COLUMNS)
    return tables.read(directory, "photos.parquet", _PHOTO_COLUMNS)


def _photograph_tiles(frame: pl.DataFrame, side: int) -> tuple[Tensor, list[str]]:
    """Cut photographs, at their own size, into tiles; incomplete ones at the right and bottom edge are left out."""
    tiles, origins = photograph_tiles(frame["image"].to_list(), side)
    groups = frame["group"].to_list()
    return tiles, [groups[origin] for origin in origins]
