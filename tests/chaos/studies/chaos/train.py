"""Trains the network of one arm, with a checkpoint after every few steps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from flows.studies.chaos.table import network, table

from components.training.loop import Optimisation, fit
from components.training.weights import save_weights
from flows.studies.context import StageContext

PAUSE = "CHAOS_PAUSE"
"""Variable: seconds to sleep after each step, so that a fault can fall into the middle. No number depends on it."""


def train(stage: StageContext) -> None:
    """Write the weights and their curves."""
    params, pause = stage.params, float(os.environ.get(PAUSE, "0"))
    contexts, probabilities = table(stage.inputs["data/markov"])
    model = network(contexts.shape[1], params.width)

    def draw(step: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(len(contexts), (16,), generator=generator)

    def loss(model: torch.nn.Module, rows: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        return (model(contexts[rows]) - probabilities[rows]).square().mean(), {}

    _meet_the_fault(stage)
    print(f"training for {params.steps} steps", flush=True)
    curves = fit(
        model,
        draw,
        loss,
        Optimisation(params.steps, learning_rate=0.01),
        seed=stage.seed,
        checkpoint=stage.checkpoint / "fit",
        checkpoint_seconds=0.0,
        log_every=5,
        progress=stage.progress,
        after_step=lambda model, step, generator: time.sleep(pause),
    )
    save_weights(model, stage.output / "model.safetensors")
    curves.write(stage.output)


def _meet_the_fault(stage: StageContext) -> None:
    """Do what the trial asks of this stage: die by an error, or need more memory than there is, the first time."""
    where = os.environ.get("CHAOS_FAULT", "")
    if not where:
        return
    path = Path(where)
    told = path.read_text(encoding="utf-8").split() if path.is_file() else []
    if told[1:] != [f"{stage.arm}-s{stage.seed}"]:
        return
    if told[0] == "fail":
        for line in range(40):
            print(f"line {line} before the end", flush=True)
        raise ValueError("this stage was told to fail")
    if told[0] == "memory":
        path.unlink()
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 16))
