"""Evaluate an image arm on images that no training saw: distortion, codes, bits, gradients, snapshots, controls."""

from __future__ import annotations

import json
import time

import polars as pl
import torch
from torch import Tensor, nn

from components.analysis.gradient_flow import realised_share
from components.analysis.partial_codes import decode_first, has_partial_codes
from components.bases import load_model
from components.data.pixels import to_bytes, to_unit
from components.metrics.image import psnr, ssim
from components.metrics.tables import MetricTable
from components.quantizers.additive import jointly_nearest
from components.quantizers.projected import ProjectedQuantizer, unprojected
from components.quantizers.rvq import ResidualQuantizer
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey import codes, controls, priors
from flows.studies.image_tokenizer.discrete_tokenization_survey.codec import (
    snapshot_directory,
    snapshot_step,
)
from flows.studies.image_tokenizer.discrete_tokenization_survey.standardised import StandardisedCodec
from flows.studies.image_tokenizer.evaluate import BATCH, FeatureComparison, Samples, decode, encode, in_batches
from flows.studies.image_tokenizer.sources import TestImages, test_images, training_images


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm, and the reconstructions that the judge shows."""
    params, table, samples = stage.params, MetricTable(), Samples()
    test = test_images(stage, max(params.test_images, params.feature_images))
    shown = min(params.sample_images, len(test.images))
    samples.add("image", range(shown), 0, test.images[:shown])
    if params.control:
        decoded = controls.decoded(stage, table, test.images)
    else:
        model = load_model(stage.inputs["train"]).to(stage.device)
        decoded = _codec(stage, table, samples, model, test)
    samples.add("image", range(shown), 1, decoded[:shown])
    _distortion(stage, table, test, decoded)
    FeatureComparison(stage, test, table)(decoded, None)
    table.write(stage.output)
    samples.write(stage.output)


def _codec(stage: StageContext, table: MetricTable, samples: Samples, model: nn.Module, test: TestImages) -> Tensor:
    """Measure a trained codec; return its reconstructions (B, 3, H, W), uint8."""
    params = stage.params
    if params.post_quantizer:
        model = StandardisedCodec(model, _latents(stage, model), params).to(stage.device)
    count = min(params.test_images, len(test.images))
    if not model.codebook_sizes:
        decoded = _through(stage, model, test.images)
    else:
        began = time.perf_counter()
        indices = encode(model, test.images, stage.device)
        timing = {"encode_seconds": time.perf_counter() - began, "images": len(indices)}
        (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
        decoded = decode(model, indices, stage.device)
        codes.code_metrics(table, model.quantizer, indices[:count])
        _partial(stage, table, samples, model, test, indices[:count])
        _searches(stage, table, model, test.images[:count])
        if params.prior:
            priors.prior_metrics(stage, table, model, indices[:count])
    if not params.post_quantizer:
        _gradients(stage, table, model, test.images[: params.gradient_images])
    if model.codebook_sizes and not params.post_quantizer:
        for share in (*params.snapshots, *([1.0] if params.snapshots else [])):
            _snapshot(stage, table, test, share)
    return decoded


def _distortion(stage: StageContext, table: MetricTable, test: TestImages, decoded: Tensor) -> None:
    count = min(stage.params.test_images, len(test.images))
    for name, metric, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "")):
        values = in_batches(metric, decoded[:count], test.images[:count])
        table.add_items(name, values, unit=unit, items=test.items[:count])


@torch.no_grad()
def _through(stage: StageContext, model: nn.Module, images: Tensor) -> Tensor:
    """Return the reconstructions of a codec without codes, uint8."""
    parts = [model.decode_values(model.latents(part.to(stage.device))) for part in images.split(BATCH)]
    return torch.cat([to_bytes(part).cpu() for part in parts])


@torch.no_grad()
def _latents(stage: StageContext, model: nn.Module) -> Tensor:
    """Return latents (B, P, C) of the first training images."""
    images = training_images(stage)[: stage.params.statistics_images]
    return torch.cat([model.latents(part.to(stage.device)) for part in images.split(BATCH)])


@torch.no_grad()
def _partial(
    stage: StageContext, table: MetricTable, samples: Samples, model: nn.Module, test: TestImages, indices: Tensor
) -> None:
    """PSNR by number of codebooks decoded, where the first of them are a code."""
    quantizer = unprojected(model.quantizer)
    if len(model.codebook_sizes) < 2 or not has_partial_codes(quantizer):
        return
    learned = encode(model, training_images(stage)[: stage.params.statistics_images], stage.device)
    mean = torch.cat([quantizer.decode(part.to(stage.device)).flatten(0, 1) for part in learned.split(BATCH)]).mean(0)
    maps = model.quantizer.outward if isinstance(model.quantizer, ProjectedQuantizer) else nn.Identity()
    shown = min(stage.params.sample_images, len(indices))
    for known in range(1, len(model.codebook_sizes) + 1):
        decoded = torch.cat(
            [
                to_bytes(model.decode_values(maps(decode_first(quantizer, part.to(stage.device), known, mean)))).cpu()
                for part in indices.split(BATCH)
            ]
        )
        values = in_batches(psnr, decoded, test.images[: len(decoded)])
        at = {"codebooks": known}
        table.add_items("partial_psnr", values, unit="dB", at=at, items=test.items[: len(decoded)])
        samples.add("partial", range(shown), known, decoded[:shown])


@torch.no_grad()
def _searches(stage: StageContext, table: MetricTable, model: nn.Module, images: Tensor) -> None:
    """Distance of latents from their codes with the same residual books, one after the other and chosen jointly."""
    quantizer = unprojected(model.quantizer)
    if not isinstance(quantizer, ResidualQuantizer):
        return
    maps = model.quantizer.inward if isinstance(model.quantizer, ProjectedQuantizer) else nn.Identity()
    books = [codebook.weight for codebook in quantizer.codebooks]
    errors: dict[str, list[Tensor]] = {"greedy": [], "joint": []}
    for part in images.split(BATCH):
        vectors = maps(model.latents(part.to(stage.device)))
        for search, beams in (("greedy", 1), ("joint", stage.params.beam_width)):
            values = quantizer.decode(jointly_nearest(vectors, books, beams))
            errors[search].append((vectors - values).square().sum(-1).mean(1).cpu())
    for search, values in errors.items():
        table.add_items("latent_error", torch.cat(values).tolist(), unit="", at={"search": search})


def _gradients(stage: StageContext, table: MetricTable, model: nn.Module, images: Tensor) -> None:
    """How true the gradient is that passes the quantizer, and how it arrived at the encoder over the training."""
    shares = []
    for part in images.split(BATCH):
        originals = to_unit(part.to(stage.device))
        with torch.no_grad():
            latents = model.latents(originals)

        def error(vectors: Tensor, originals: Tensor = originals) -> Tensor:
            decoded = model.decode_values(model.quantizer(vectors).values)
            return (decoded - originals).square().flatten(1).mean(1)

        shares.append(realised_share(error, latents, stage.params.gradient_step))
    realised = torch.cat(shares).cpu()
    table.add_items("gradient_realised", realised.tolist(), unit="share")
    table.add("codec_gradient_bias", abs(float(realised.mean()) - 1), unit="", samples=len(realised))
    frame = pl.read_parquet(stage.inputs["train"] / "curves.parquet").filter(pl.col("series") == "encoder_gradient")
    later = frame.filter(pl.col("step") > frame["step"].max() / 2)["value"].to_numpy()
    table.add("encoder_gradient", float(later.mean()), unit="", samples=len(later))
    spread = float(later.std() / later.mean()) if later.mean() else 0.0
    table.add("encoder_gradient_variation", spread, unit="", samples=len(later))


def _snapshot(stage: StageContext, table: MetricTable, test: TestImages, share: float) -> None:
    """Use of the codebook and PSNR after a share of the steps of training."""
    params, directory = stage.params, stage.inputs["train"]
    if share < 1:
        directory = snapshot_directory(directory, snapshot_step(params, share))
    model = load_model(directory).to(stage.device)
    images = test.images[: params.test_images]
    indices = encode(model, images, stage.device)
    at = {"progress": share}
    joint = codes.joint_symbols(*codes.index_columns(model.quantizer, indices))
    if joint is not None:
        codes.use_of_codebook(table, *joint, len(images), at)
    values = in_batches(psnr, decode(model, indices, stage.device), images)
    table.add_items("psnr", values, unit="dB", at=at, items=test.items[: len(images)])
