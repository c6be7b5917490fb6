"""Evaluate one arm: how much its tokens lose, how well they are predicted, and what is drawn from it."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from components.analysis.frequency_order import low_frequency_shares
from components.bases import load_model
from components.metrics.frechet import frechet_distance, leave_group_out
from components.metrics.generation import precision, recall
from components.metrics.image import psnr
from components.metrics.stats import jackknife_variance
from components.metrics.tables import MetricTable
from components.nn.conv_autoencoder import to_maps
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.image_generation.codes import Codes
from flows.studies.image_generation.sources import LabelledImages, labelled_images
from flows.studies.image_tokenizer.evaluate import FeatureNetwork, Samples

_BATCH = 250
_FRECHET_BLOCKS = 10
_SAMPLING = 4  # stream of what is drawn; 0 to 2 seed the process, 3 the codebooks


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm, and images for the judge's figures."""
    params = stage.params
    table, samples = MetricTable(), Samples()
    codes = arm_codes(stage)
    count = max(params.held_out_images, params.test_images)
    test = labelled_images(stage, "test", count)
    table.add("code_bits", codes.bits_per_image, unit="bits", samples=1)
    if params.generator == "none":
        reconstruction(stage, codes, test.images[: params.test_images], table, samples)
    else:
        held_out = LabelledImages(test.images[: params.held_out_images], test.labels[: params.held_out_images])
        generation(stage, codes, held_out, table, samples)
    table.write(stage.output)
    samples.write(stage.output)


def arm_codes(stage: StageContext) -> Codes:
    """Return the arm's tokens, with codebooks as its training made them, or as they are made without a training."""
    codes = Codes(stage)
    trained = stage.inputs.get("train")
    if codes.quantizer is not None and trained is not None:
        codes.quantizer = load_model(trained / "quantizer").to(stage.device)
    elif stage.params.quantizer in ("kmeans", "rvq"):
        images = labelled_images(stage, "train", stage.params.fitted_images).images
        codes.fit(codes.latents(images), stage.seed)
    return codes


def reconstruction(stage: StageContext, codes: Codes, images: Tensor, table: MetricTable, samples: Samples) -> None:
    """Measure what is lost between the continuous latents and the arm's tokens, in latents and in images."""
    tokens = codes.encode(images)
    decoded = codes.decode(tokens)
    add_psnr(table, "psnr", decoded, images)
    if stage.params.quantizer != "own":
        _compare_latents(stage, codes, codes.latents(images), tokens, table)
    if stage.params.quantizer == "none":
        _floor(stage, table)
    network = FeatureNetwork(stage)
    features, references = network(decoded)[0], network(images)[0]
    blocks = np.arange(len(images)) * _FRECHET_BLOCKS // len(images)
    value, without = leave_group_out(features, references, blocks)
    _add_frechet(table, "fd_reconstruction", value, len(images), jackknife_variance(value, without))
    shown = min(stage.params.shown_images, len(images))
    samples.add("original", range(shown), 0, images[:shown])
    samples.add("reconstruction", range(shown), 0, decoded[:shown])


def generation(stage: StageContext, codes: Codes, test: LabelledImages, table: MetricTable, samples: Samples) -> None:
    """Measure how well the generator predicts held-out tokens and how its images compare with real ones."""
    params = stage.params
    tokens = codes.encode(test.images)
    generator, order = _generator(stage, codes)
    if order is not None and params.quantizer == "dimension_wise" and params.generator != "context_free":
        _measure_order(codes, test.images[: params.test_images], order, table)
    if hasattr(generator, "nll") and params.quantizer != "none":
        _likelihood(stage, generator, tokens, test.labels, order or list(range(tokens.shape[-1])), table)
    network = FeatureNetwork(stage)
    references = network(test.images)[0]
    labels = torch.arange(params.generated) % params.classes
    for draw, metric in zip(range(params.draws), ("fd_cifar", "fd_cifar_again"), strict=False):
        images = codes.decode(sample(stage, generator, labels, draw))
        features, classes = network(images)
        _add_frechet(table, metric, frechet_distance(features, references), len(images))
        if draw:
            continue
        share = float((classes == labels).double().mean())
        variance = share * (1 - share) / len(labels)
        table.add("class_accuracy", share, unit="share", samples=len(labels), variance=variance)
        real = references[: len(features)]
        for name, function in (("precision", precision), ("recall", recall)):
            value = function(features, real, params.neighbours)
            table.add(name, value, unit="share", samples=len(features), normaliser=f"{params.feature_base} features")
        shown = min(params.shown_images, len(images))
        samples.add("generated", range(shown), 0, images[:shown])


@torch.no_grad()
def sample(stage: StageContext, generator, labels: Tensor, draw: int) -> Tensor:
    """Return the tokens (B, P, M), on the CPU, of images drawn for labels (B,); `draw` numbers independent sets."""
    params = stage.params
    settings = {"guidance": params.guidance, "schedule": params.guidance_schedule, "temperature": params.temperature}
    if params.generator == "masked_autoregressive":
        settings["steps"] = min(params.sampling_steps, generator.positions)
    random = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _SAMPLING, draw))
    parts = []
    for part in labels.split(params.sampling_batch):
        parts.append(generator.sample(part.to(stage.device), random, **settings).cpu())
        stage.progress(sum(map(len, parts)), len(labels))
    return torch.cat(parts)


def add_psnr(table: MetricTable, metric: str, images: Tensor, references: Tensor) -> None:
    """Add the peak signal-to-noise ratio of each of some uint8 images (B, 3, H, W)."""
    pairs = zip(images.split(_BATCH), references.split(_BATCH), strict=True)
    table.add_items(metric, torch.cat([psnr(one, other) for one, other in pairs]).double().numpy(), unit="dB")


def _generator(stage: StageContext, codes: Codes):
    """Return what is drawn from, and the order of a token's numbers where a training recorded one."""
    if stage.params.generator == "histograms":
        tokens = codes.encode(labelled_images(stage, "train", stage.params.train_images).images)
        controls = importlib.import_module("components.language.context_free")
        return controls.PositionHistograms(tokens, codes.codebook_sizes[0]), None
    model = load_model(stage.inputs["train"]).to(stage.device)
    return model, json.loads((stage.inputs["train"] / "order.json").read_text())


@torch.no_grad()
def _likelihood(
    stage: StageContext, generator, tokens: Tensor, labels: Tensor, order: Iterable[int], table: MetricTable
) -> None:
    bits = _bits(generator, tokens, labels, stage.device)
    table.add_items("bits_per_image", bits.sum((1, 2)).numpy(), unit="bits")
    table.add_items("bits_per_dimension", bits.mean((1, 2)).numpy(), unit="bits", normaliser="numbers of a token")
    by_place = bits.mean((0, 1))[list(order)]
    for place, value in enumerate(by_place.tolist(), start=1):
        table.add("dimension_bits", value, unit="bits", at={"place": place}, samples=len(bits))
    if stage.params.generator == "histograms":
        pooled = _bits(generator.pooled(), tokens, labels, stage.device).mean((1, 2))
        table.add_items("pooled_bits_per_dimension", pooled.numpy(), unit="bits", normaliser="numbers of a token")


def _bits(generator, tokens: Tensor, labels: Tensor, device: str) -> Tensor:
    parts = zip(tokens.split(_BATCH), labels.split(_BATCH), strict=True)
    nats = [generator.nll(part.to(device), classes.to(device)).double().cpu() for part, classes in parts]
    return torch.cat(nats) / math.log(2)


def _measure_order(codes: Codes, images: Tensor, order: list[int], table: MetricTable) -> None:
    """Measure what the first half of the dimensions in the order shows, and each one's low-frequency energy."""
    latents = codes.latents(images)
    values = codes.values(codes.quantize(latents))
    known = torch.zeros(values.shape[-1]).index_fill(0, torch.tensor(order[: len(order) // 2]), 1.0)
    with torch.no_grad():
        decoded = codes.decode_values(values * known)
    add_psnr(table, "psnr_half", decoded, images)
    shares = low_frequency_shares(to_maps(latents, codes.autoencoder.rows))[order]
    for place, share in enumerate(shares.tolist(), start=1):
        table.add("low_frequency_share", share, unit="share", at={"place": place}, samples=len(images))


def _compare_latents(stage: StageContext, codes: Codes, latents: Tensor, tokens: Tensor, table: MetricTable) -> None:
    with torch.no_grad():
        values = torch.cat([codes.values(part.to(stage.device)).cpu() for part in tokens.split(_BATCH)])
    error, variance = (values - latents).double().square().mean(), latents.double().var()
    table.add("distortion", float(error / variance), unit="", samples=len(latents), normaliser="variance of latents")
    if stage.params.quantizer == "dimension_wise":
        table.add("clipped_share", float(codes.quantizer.clipped_share(latents)), unit="share", samples=len(latents))
    if stage.params.quantizer == "none":
        _describe_latents(latents, table)


def _describe_latents(latents: Tensor, table: MetricTable) -> None:
    flat = latents.double().flatten(0, 1)
    centred = flat - flat.mean(0)
    deviation = centred.square().mean(0).sqrt()
    kurtosis = centred.pow(4).mean(0) / deviation.pow(4).clamp(min=torch.finfo(torch.float64).tiny)
    for metric, values in (("channel_deviation", deviation), ("channel_kurtosis", kurtosis)):
        for channel, value in enumerate(values.tolist()):
            table.add(metric, value, unit="", at={"channel": channel}, samples=len(latents))


def _floor(stage: StageContext, table: MetricTable) -> None:
    """Measure real training images as if they were generated: no generator is expected to come closer."""
    network = FeatureNetwork(stage)
    real = network(labelled_images(stage, "train", stage.params.generated).images)[0]
    test = network(labelled_images(stage, "test", stage.params.held_out_images).images)[0]
    _add_frechet(table, "fd_real", frechet_distance(real, test), len(real))


def _add_frechet(table: MetricTable, metric: str, value: float, samples: int, variance: float | None = None) -> None:
    table.add(metric, value, unit="", samples=samples, variance=variance, normaliser="cifar-clf-b features")
