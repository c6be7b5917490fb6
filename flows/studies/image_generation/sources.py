"""The images of a stage, with their classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.data import tables
from components.data.images import decode_images
from components.errors import TesseraError
from flows.studies.context import StageContext


class ImageSourceError(TesseraError):
    """A data set does not hold what the study needs."""


class LabelledImages(NamedTuple):
    """Images with their classes.

    Attributes:
        images: uint8 (B, 3, H, W).
        labels: int64 (B,).
    """

    images: Tensor
    labels: Tensor


def labelled_images(stage: StageContext, split: str, count: int) -> LabelledImages:
    """Return the first `count` images of a split ("train" or "test"); fewer where there are not as many.

    Raises:
        ImageSourceError: The stage was not given the data set, or its images have another size or more classes.
    """
    params = stage.params
    name = f"data/{params.dataset}"
    if name not in stage.inputs:
        raise ImageSourceError(
            f"dataset is {params.dataset!r}, but the stage was given {', '.join(sorted(stage.inputs))}; add it to the "
            "variant's `data`."
        )
    frame = tables.read_split(stage.inputs[name], split, ["image", "label"]).head(count)
    images = decode_images(frame["image"].to_list())
    labels = torch.from_numpy(frame["label"].to_numpy().copy()).long()
    if images.shape[-2:] != (params.image_side, params.image_side):
        raise ImageSourceError(
            f"images are {images.shape[-1]} x {images.shape[-2]} pixels, image_side is {params.image_side}; set "
            "image_side to match."
        )
    if int(labels.max()) >= params.classes:
        raise ImageSourceError(
            f"a label of {params.dataset} is {int(labels.max())}, but classes is {params.classes}; set classes to the "
            "number of classes of the data set."
        )
    return LabelledImages(images, labels)
