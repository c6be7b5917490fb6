"""Train a two-stream network to predict masked tokens in an order."""

from __future__ import annotations

import torch
from torch import Tensor

from components.bases import construct, save_model, specification
from components.language.any_order import (
    MaskRates,
    Order,
    hide,
    joint_nats,
    lattice_order,
    mean_nats,
    parallel_nats,
    random_order,
)
from components.nn.two_stream_transformer import TwoStreamTransformer
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.decoding.assd import texts
from flows.studies.decoding.assd.params import TrainParams

_WEIGHTS = 1  # random stream of this stage


def description(params: TrainParams, vocabulary_size: int) -> dict:
    """Describe the network of an arm."""
    return specification(
        "components.nn.two_stream_transformer",
        vocabulary_size=vocabulary_size,
        context=params.context,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
    )


def build(params: TrainParams) -> TwoStreamTransformer:
    """Build the network of an arm for as many tokens as its parameters say, on torch's default device."""
    return construct(description(params, params.vocabulary_size))


def train(stage: StageContext) -> None:
    """Write the network and its curves.

    The seed decides the initial weights, the windows, what is masked, and the chain where there is one.
    """
    params: TrainParams = stage.params
    windows, vocabulary_size = texts.training(stage)
    rates = MaskRates(params.mask_start, params.mask_low, params.mask_high, params.mask_warmup_steps)
    nats_of = joint_nats if params.objective == "joint" else parallel_nats

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        tokens = windows.draw(params.batch, generator)
        visible = hide(rates.counts(step, params.batch, params.context, generator), params.context, generator)
        order = lattice_order(visible) if params.order == "lattice" else random_order(visible, generator)
        return tokens, order.ranks, order.prompt

    def loss(model: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor], _: torch.Generator) -> tuple[Tensor, dict]:
        tokens, ranks, prompt = batch
        order = Order(ranks, prompt)
        return mean_nats(nats_of(model, tokens, order), order), {}

    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    described = description(params, vocabulary_size)
    model = construct(described)
    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    save_model(stage.output, model, described)
    curves.write(stage.output)
