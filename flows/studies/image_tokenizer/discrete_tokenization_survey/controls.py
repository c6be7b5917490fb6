"""What a codec of 4 x 4 cells must beat: the mean colour of every cell, and the nearest of many raw patches.

Letters: `B` images, `H W` pixels, `P` cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.data.images import tile, untile
from components.data.pixels import to_bytes, to_unit
from components.metrics.tables import MetricTable
from components.nn.conv_autoencoder import cell_means
from components.quantizers.kmeans import KMeansQuantizer
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey import codes
from flows.studies.image_tokenizer.sources import training_images

_CENTRES = 5  # stream of the centres' start


@torch.no_grad()
def decoded(stage: StageContext, table: MetricTable, images: Tensor) -> Tensor:
    """Return what the arm's control shows for images (B, 3, H, W), uint8."""
    side = 2 ** len(stage.params.channels)
    if stage.params.control == "mean_colour":
        return to_bytes(cell_means(to_unit(images), side))
    return _nearest_patches(stage, table, images, side)


def _nearest_patches(stage: StageContext, table: MetricTable, images: Tensor, side: int) -> Tensor:
    params = stage.params
    quantizer = KMeansQuantizer(params.control_codes, 3 * side**2, iterations=params.iterations).to(stage.device)
    learned = _patches(training_images(stage)[: params.statistics_images], side).to(stage.device)
    quantizer.start_from(learned, torch.Generator().manual_seed(derive_seed(stage.seed, _CENTRES)))
    patches = _patches(images, side).to(stage.device)
    indices = quantizer(patches).indices.cpu().view(len(images), -1)
    codes.code_metrics(table, quantizer.cpu(), indices[: params.test_images])
    values = quantizer.decode(indices).view(-1, 3, side, side)
    return to_bytes(untile(values, *images.shape[-2:]))


def _patches(images: Tensor, side: int) -> Tensor:
    """Return the pixels (B P, 3 side^2), 0 to 1, of every cell of images (B, 3, H, W)."""
    return to_unit(tile(images, side)).flatten(1)
