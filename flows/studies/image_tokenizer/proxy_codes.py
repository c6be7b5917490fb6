"""Two-stage training through the codes of a frozen grid tokenizer, as TiTok and its successors do it."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from components.bases import construct, save_model, specification
from components.data.pixels import to_unit
from components.metrics.tables import CurveTable
from components.nn.patch_discriminator import PatchDiscriminator
from components.training.loop import fit
from components.training.reconstruction_loss import feature_error, pixel_error
from components.training.weights import load_weights
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.models import tokenizer_description
from flows.studies.image_tokenizer.sources import training_images
from flows.studies.image_tokenizer.train import (
    UNITS,
    batches,
    optimisation,
    perceptual_network,
    start_codebook,
)


def train_on_proxy_codes(stage: StageContext) -> None:
    """Train a tokenizer whose decoder predicts the codes of `target`, then pixels; write the model and its curves."""
    params = stage.params
    images = training_images(stage)
    grid = stage.inputs[f"bases/{params.target}"]
    head = specification(
        "components.tokenizers.image.proxy_codes",
        grid=json.loads((grid / "config.json").read_text()),
        width=params.width,
    )
    description = tokenizer_description(params, head=head)
    model = construct(description)
    load_weights(model.head.grid, grid / "model.safetensors")
    start_codebook(model, images, params, stage.seed)
    first = _predict_codes(stage, model, images)
    second = _decode_pixels(stage, model, images) if params.finetune_steps else CurveTable()
    save_model(stage.output, model, description)
    _after(first, second, params.steps).write(stage.output)


def _predict_codes(stage: StageContext, model: nn.Module, images: Tensor) -> CurveTable:
    """Stage 1: cross entropy to the grid's codes and the quantizer's loss."""
    params = stage.params

    def loss(model: nn.Module, batch: tuple[Tensor, int], _: torch.Generator) -> tuple[Tensor, dict]:
        originals = to_unit(batch[0])
        codes = model.quantizer(model.encoder(originals))
        entropy = model.head.loss(model.features(codes.values, batch[1]), originals)
        return entropy + params.quantizer_weight * codes.loss, {"code_entropy": entropy, "quantizer_loss": codes.loss}

    return fit(
        model,
        batches(images, model, params.batch_size),
        loss,
        optimisation(params, params.steps, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint / "codes",
        progress=stage.progress,
        after_step=lambda model, step, generator: model.after_step(step, generator),
        units={"loss": "nats", "code_entropy": "nats"},
    )


def _decode_pixels(stage: StageContext, model: nn.Module, images: Tensor) -> CurveTable:
    """Stage 2: encoder and codebook frozen; decoder, head and the grid's pixel decoder learn pixels, adversarially.

    Both players take their gradients from the same forward pass and never reach into each other, so one optimiser
    step over both is the usual pair of steps; only the clipping norm is shared.
    """
    params = stage.params
    model.encoder.requires_grad_(False)
    model.quantizer.requires_grad_(False).eval()
    model.head.train_decoder()
    network = perceptual_network(stage)
    players = nn.ModuleDict({"tokenizer": model, "discriminator": PatchDiscriminator()})
    draw_images = batches(images, model, params.batch_size)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, int, int]:
        return *draw_images(step, generator), step

    def loss(players: nn.ModuleDict, batch: tuple[Tensor, int, int], _: torch.Generator) -> tuple[Tensor, dict]:
        originals, judge = to_unit(batch[0]), players["discriminator"]
        with torch.no_grad():
            codes = model.quantizer.decode(model.encode(originals))
        decoded = model.head(model.features(codes, batch[1]))
        series = {"pixel_error": pixel_error(decoded, originals)}
        total = series["pixel_error"]
        if network is not None:
            series["feature_error"] = feature_error(network, decoded, originals)
            total = total + params.perceptual_weight * series["feature_error"]
        if batch[2] >= params.adversarial_start:
            series["discriminator_loss"] = judge.discriminator_loss(originals, decoded, params.lecam_weight)
            series["generator_loss"] = judge.generator_loss(decoded)
            total = total + params.adversarial_weight * series["generator_loss"] + series["discriminator_loss"]
        return total, series

    return fit(
        players,
        draw_batch,
        loss,
        optimisation(params, params.finetune_steps, params.finetune_warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint / "pixels",
        progress=stage.progress,
        after_step=lambda players, step, generator: players["discriminator"].after_step(),
        units=UNITS,
    )


def _after(first: CurveTable, second: CurveTable, steps: int) -> CurveTable:
    """Return both stages' curves in one table, the second stage's named and counted on after the first."""
    joined = CurveTable.from_frame(first.frame())
    for row in second.frame().iter_rows(named=True):
        joined.add(f"stage 2 {row['series']}", row["step"] + steps, row["value"], unit=row["unit"])
    return joined
