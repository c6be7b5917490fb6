"""Whole photographs at a byte budget: a tokenizer on tiles against codecs on the whole image.

A tokenizer of small images codes a photograph tile by tile, with the same number of tokens for every tile; seams are
left as they are. The bytes are those of the packed indices, tile after tile.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from components.compression import bits
from components.compression.image_codecs import best_under
from components.data.images import tile, untile
from components.errors import TesseraError
from components.metrics.frechet import leave_group_out
from components.metrics.image import ms_ssim, psnr
from components.metrics.stats import jackknife_influence
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.evaluate import FeatureNetwork, Samples, by_item, decode, encode
from flows.studies.image_tokenizer.sources import Photographs, photographs


class BitstreamMismatch(TesseraError):
    """Codes read back from their bits are not the codes that were written."""


def tokenizer_at_budgets(stage: StageContext, model: nn.Module, table: MetricTable, samples: Samples) -> None:
    """Code the photographs with a tokenizer at every budget that it can meet, through real bits, and measure them."""
    params = stage.params
    photos = photographs(stage)
    tiles = tile(photos.images, params.image_side)
    indices = encode(model, tiles, stage.device)
    per_photo = len(tiles) // len(photos.images)
    decoded: dict[int, Tensor] = {}
    for budget in params.photo_bytes:
        length = tokens_within(budget, per_photo, model.codebook_size)
        if not 1 <= length <= indices.shape[1]:
            continue
        streams = [bits.pack(codes, model.codebook_size) for codes in indices[:, :length].numpy()]
        used = [sum(map(len, streams[start : start + per_photo])) for start in range(0, len(streams), per_photo)]
        read = torch.from_numpy(np.stack([bits.unpack(stream, length, model.codebook_size) for stream in streams]))
        if not torch.equal(read, indices[:, :length]):
            raise BitstreamMismatch(
                f"{length} tokens per tile do not survive their bitstream; components.compression.bits is broken."
            )
        images = untile(decode(model, read, stage.device), params.photo_side, params.photo_side)
        decoded[budget] = images
        _payload(table, photos, budget, used)
    _measure(stage, photos, decoded, table, samples)


def codec_at_budgets(stage: StageContext, table: MetricTable, samples: Samples) -> None:
    """Code the photographs with JPEG or WebP at every budget, each at its best, and measure them."""
    params = stage.params
    photos = photographs(stage)
    pixels = photos.images.permute(0, 2, 3, 1).contiguous().numpy()
    coded = []
    for done, image in enumerate(pixels):
        coded.append(best_under(image, params.codec, params.photo_bytes, params.codec_quality_step))
        stage.progress(done + 1, len(pixels))
    decoded = {}
    for budget in params.photo_bytes:
        decoded[budget] = torch.from_numpy(np.stack([each[budget].decoded for each in coded])).permute(0, 3, 1, 2)
        _payload(table, photos, budget, [each[budget].payload for each in coded])
    _measure(stage, photos, decoded, table, samples)


def tokens_within(budget: int, tiles: int, codebook_size: int) -> int:
    """Return how many tokens every tile may have so that all tiles, packed one by one, fit into `budget` bytes."""
    return budget // tiles * 8 // bits.bits_per_token(codebook_size)


def _payload(table: MetricTable, photos: Photographs, budget: int, used: list[int]) -> None:
    items, means = by_item(photos.groups, np.array(used, dtype=np.float64))
    table.add_items("payload_bytes", means, unit="bytes", at={"bytes": budget}, items=items)


def _measure(
    stage: StageContext, photos: Photographs, decoded: Mapping[int, Tensor], table: MetricTable, samples: Samples
) -> None:
    side = stage.params.image_side
    network = FeatureNetwork(stage)
    references, _ = network(tile(photos.images, side))
    groups = list(dict.fromkeys(photos.groups))
    per_photo = len(references) // len(photos.images)
    of_tile = np.repeat([groups.index(group) for group in photos.groups], per_photo)
    shown = min(stage.params.sample_photos, len(photos.images))
    samples.add("photograph", photos.names[:shown], 0, photos.images[:shown])
    for budget, images in decoded.items():
        at = {"bytes": budget}
        for name, metric, unit in (("psnr_photographs", psnr, "dB"), ("ms_ssim_photographs", ms_ssim, "")):
            items, means = by_item(photos.groups, metric(images, photos.images).double().numpy())
            table.add_items(name, means, unit=unit, at=at, items=items)
        features, _ = network(tile(images, side))
        value, without = leave_group_out(features, references, of_tile)
        # One row per group of photographs, so that arms pair on what they coded: see jackknife_influence.
        rows = jackknife_influence(value, without)
        table.add_items("fd_tiles", rows, unit="", at=at, items=groups, normaliser="cifar-clf-b features")
        samples.add("photograph", photos.names[:shown], budget, images[:shown])
