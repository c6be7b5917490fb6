"""Train the network of an arm: windows of characters, or pairs of captions."""

from __future__ import annotations

import json
import time

import torch

from components.bases import construct, save_model
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.e2d2 import networks, tasks
from flows.studies.discrete_diffusion.e2d2.params import TrainParams


def train(stage: StageContext) -> None:
    """Write network and curves; the seed decides initial weights, what is drawn from the data, times and masks."""
    params: TrainParams = stage.params
    task = tasks.task_of(stage)
    description = networks.describe(params, task.words, task.special)
    torch.manual_seed(derive_seed(stage.seed, 1))
    network = construct(description)
    began = time.perf_counter()
    curves = fit(
        network,
        lambda step, generator: task.draw(params.batch, generator),
        networks.loss_of(params, task),
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    timing = {"seconds": time.perf_counter() - began, "steps": params.steps}
    (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
    save_model(stage.output, network, description)
    curves.write(stage.output)
