"""Train the tokenizer of one arm: pixels in, tokens, pixels out."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from components.bases import construct, load_model, save_model
from components.data.images import random_flip
from components.data.pixels import to_unit
from components.nn.image_classifiers import frozen
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.reconstruction_loss import feature_error, pixel_error
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.models import tokenizer_description
from flows.studies.image_tokenizer.sources import training_images

UNITS = {"loss": "", "pixel_error": "", "feature_error": "", "quantizer_loss": "", "kept": "tokens"}
_START = 3  # stream of the codebook's start; 0 to 2 seed the process (components.training.determinism.reset)


def train(stage: StageContext) -> None:
    """Train one arm and write its model and curves: on pixels, or in two stages through a grid tokenizer's codes."""
    if stage.params.target == "pixels":
        train_on_pixels(stage)
    else:
        # By name, so that a change of the two stages makes only those arms stale that use them.
        importlib.import_module("flows.studies.image_tokenizer.proxy_codes").train_on_proxy_codes(stage)


def train_on_pixels(stage: StageContext) -> None:
    """Train on pixel error, perceptual term and the quantizer's loss; write the model and its curves."""
    params = stage.params
    images = training_images(stage)
    description = tokenizer_description(params)
    model = construct(description)
    start_codebook(model, images, params, stage.seed)
    network = perceptual_network(stage)

    def loss(model: nn.Module, batch: tuple[Tensor, int], _: torch.Generator) -> tuple[Tensor, dict]:
        originals = to_unit(batch[0])
        result = model(originals, batch[1])
        pixels = pixel_error(result.images, originals)
        total = pixels + params.quantizer_weight * result.codes.loss
        series = {"pixel_error": pixels, "quantizer_loss": result.codes.loss, "kept": float(result.kept)}
        if network is not None:
            series["feature_error"] = feature_error(network, result.images, originals)
            total = total + params.perceptual_weight * series["feature_error"]
        return total, series

    curves = fit(
        model,
        batches(images, model, params.batch_size),
        loss,
        optimisation(params, params.steps, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda model, step, generator: model.after_step(step, generator),
        units=UNITS,
    )
    save_model(stage.output, model, description)
    curves.write(stage.output)


def batches(images: Tensor, model: nn.Module, batch_size: int):
    """Return `draw_batch` of the training loop: mirrored images and what the tokenizer draws for this step."""

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, int]:
        rows = torch.randint(len(images), (batch_size,), generator=generator)
        return random_flip(images[rows], generator), model.draw_step(generator)

    return draw_batch


def start_codebook(model: nn.Module, images: Tensor, params, seed: int) -> None:
    """Start the codebook from the vectors of a first batch of training images."""
    generator = torch.Generator().manual_seed(derive_seed(seed, _START))
    rows = torch.randperm(len(images), generator=generator)[: params.start_images]
    model.start_from(images[rows], generator)


def perceptual_network(stage: StageContext) -> nn.Module | None:
    """Load the frozen network of the perceptual term; None where that term has no weight."""
    params = stage.params
    if not params.perceptual_weight:
        return None
    return frozen(load_model(stage.inputs[f"bases/{params.perceptual_base}"])).to(stage.device)


def optimisation(params, steps: int, warmup_steps: int) -> Optimisation:
    """Return the optimiser settings of one training of `steps` steps."""
    return Optimisation(
        steps=steps,
        learning_rate=params.learning_rate,
        warmup_steps=warmup_steps,
        final_fraction=params.final_fraction,
        weight_decay=params.weight_decay,
        gradient_clip=params.gradient_clip,
        ema_decay=params.weight_ema_decay,
    )
