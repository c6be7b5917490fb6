"""Train the generator of one arm on the tokens of training images."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from components.analysis.frequency_order import low_frequency_order
from components.bases import construct, save_model
from components.nn.conv_autoencoder import to_maps
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.image_generation.codes import Codes
from flows.studies.image_generation.models import generator_description
from flows.studies.image_generation.sources import labelled_images


def train(stage: StageContext) -> None:
    """Turn training images into tokens once, train on those, write the model, its curves and its codebooks."""
    params = stage.params
    images, labels = labelled_images(stage, "train", params.train_images)
    codes = Codes(stage)
    tokens, order = training_tokens(stage, codes, images)
    description = generator_description(params, codes, order)
    model = construct(description)
    if codes.quantizer is not None and hasattr(model, "embedding"):
        # The codes that the tokens name; a model that reads their vectors carries them with it.
        model.embedding.quantizer.load_state_dict(codes.quantizer.state_dict())
        model.embedding.quantizer.requires_grad_(False)

    # What decides shapes is drawn with the batch: how many positions a masked generator predicts.
    draw_step = getattr(model, "draw_step", None)

    def draw_batch(step: int, generator: torch.Generator) -> tuple:
        rows = torch.randint(len(tokens), (params.batch_size,), generator=generator)
        return tokens[rows], labels[rows], *(() if draw_step is None else (draw_step(generator),))

    def loss(model: nn.Module, batch: tuple, generator: torch.Generator) -> tuple[Tensor, dict]:
        tokens, labels, *drawn = batch
        return model.loss(tokens, labels, generator, *drawn), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(
            steps=params.steps,
            learning_rate=params.learning_rate,
            warmup_steps=params.warmup_steps,
            final_fraction=params.final_fraction,
            weight_decay=params.weight_decay,
            gradient_clip=params.gradient_clip,
            ema_decay=params.weight_ema_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "" if params.head == "flow_head" else "nats"},
    )
    save_model(stage.output, model, description)
    if codes.quantizer is not None:
        save_model(_folder(stage, "quantizer"), codes.quantizer, codes.quantizer_description())
    (stage.output / "order.json").write_text(json.dumps(list(order)) + "\n")
    curves.write(stage.output)


def training_tokens(stage: StageContext, codes: Codes, images: Tensor) -> tuple[Tensor, list[int]]:
    """Return the tokens of training images and the order of a token's numbers; fits codebooks on the way.

    Args:
        stage: The train stage.
        codes: The arm's tokens; a quantizer that learns codes is fitted here.
        images: uint8 (B, 3, H, W).

    Returns:
        Tokens (B, P, M), and the order, a permutation of 0 to M - 1.
    """
    params = stage.params
    if params.quantizer == "own":
        tokens = codes.encode(images)
        return tokens, list(range(tokens.shape[-1]))
    latents = codes.latents(images)
    codes.fit(latents, stage.seed)
    tokens = codes.quantize(latents)
    order = list(range(tokens.shape[-1]))
    if params.quantizer == "dimension_wise" and params.order != "natural":
        # Only here a number of a token is a channel of the latents; residual codes have an order of their own.
        order = low_frequency_order(
            to_maps(latents[: params.order_images], codes.autoencoder.rows), params.low_frequency_radius
        )
        if params.order == "reversed":
            order.reverse()
    return tokens, order


def _folder(stage: StageContext, name: str):
    folder = stage.output / name
    folder.mkdir()
    return folder
