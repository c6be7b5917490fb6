"""Train the network of an arm on paraphrase pairs."""

from __future__ import annotations

import json
import time

import torch

from components.bases import construct, save_model
from components.diffusion.objectives import Items
from components.metrics.tables import CurveTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion import models
from flows.studies.discrete_diffusion.params import TrainParams
from flows.studies.discrete_diffusion.sources import Paraphrases


def train(stage: StageContext) -> None:
    """Write network and curves; the seed decides initial weights, the order of pairs, times and noise."""
    params: TrainParams = stage.params
    task = Paraphrases(stage.inputs["data/shapes"])
    description = models.describe(params, task.words)
    torch.manual_seed(derive_seed(stage.seed, 1))
    model = construct(description)
    began = time.perf_counter()
    curves = fit_denoiser(stage, params, model, task.examples("train", params.pairs).items)
    timing = {"seconds": time.perf_counter() - began, "steps": params.steps}
    (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
    save_model(stage.output, model, description)
    curves.write(stage.output)


def fit_denoiser(stage: StageContext, params, model: torch.nn.Module, items: Items) -> CurveTable:
    """Train a denoiser in place on pairs drawn with replacement, each batch cut to its longest sequences."""
    lengths = Items(*((side != model.padding).sum(1) for side in items))

    def draw(step: int, generator: torch.Generator) -> Items:
        rows = torch.randint(len(items.source), (params.batch,), generator=generator)
        return Items(*(side[rows, : int(length[rows].max())] for side, length in zip(items, lengths, strict=True)))

    return fit(
        model,
        draw,
        models.objective_of(params, model),
        Optimisation(
            params.steps,
            params.learning_rate,
            params.warmup_steps,
            weight_decay=params.weight_decay,
            betas=(0.9, 0.98),
            ema_decay=params.ema_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token", "token_loss": "nats/token", "length_loss": "nats"},
    )
