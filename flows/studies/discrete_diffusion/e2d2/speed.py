"""Seconds of a training step and of cached sampling: untrained networks of the arms' sizes, timed side by side.

One token a step and a fixed number of steps, so that the work does not depend on the weights. The networks take turns:
what else the machine does meets all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.bases import construct
from components.diffusion.block import sample_blocks
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.e2d2 import networks, tasks
from flows.studies.discrete_diffusion.e2d2.params import EvaluateParams

_WARM_UP = 2  # turns that are not counted


def measure(stage: StageContext) -> None:
    """Write seconds and tokens per second of every network of `timed`."""
    params: EvaluateParams = stage.params
    task = tasks.task_of(stage)
    table = MetricTable()
    begin = os.getloadavg()[0]
    sized = {name: _sized(params, name) for name in params.timed}
    torch.manual_seed(derive_seed(stage.seed, 1))
    built = {
        name: construct(networks.describe(own, task.words, task.special)).to(stage.device)
        for name, own in sized.items()
    }
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, 2))
    batch = tuple(part.to(stage.device) for part in task.draw(params.batch, generator))
    steps = {name: _step(stage, sized[name], task, network, batch) for name, network in built.items()}
    training = _in_turns(steps, params.timed_steps, stage)
    prompt = task.draw(params.timed_sequences, generator)[0].to(stage.device)
    written = {name: _writing(stage, params, task, network.eval(), prompt) for name, network in built.items()}
    sampling = _in_turns(written, params.timed_samplings, stage)
    tokens = params.timed_sequences * params.length
    for name in built:
        at = {"network": name}
        table.add("seconds_per_step", training[name], unit="s", at=at, samples=params.timed_steps)
        table.add("tokens_per_second", tokens / sampling[name], unit="tokens/s", at=at, samples=params.timed_samplings)
        table.add("seconds_per_token", sampling[name] / tokens, unit="s", at=at, samples=params.timed_samplings)
    for when, load in (("begin", begin), ("end", os.getloadavg()[0])):
        table.add("load", load, unit="", at={"when": when}, samples=1)
    table.write(stage.output)


def _sized(params: EvaluateParams, name: str) -> EvaluateParams:
    kind, *layers = name.split("-")
    changes = dict(zip(("encoder_layers", "decoder_layers"), map(int, layers), strict=False))
    return params.model_copy(update={"network": kind, **changes})


def _step(
    stage: StageContext, params: EvaluateParams, task: tasks.Task, network: Any, batch: tuple[Tensor, ...]
) -> Callable[[], object]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=params.learning_rate, fused=True)
    loss = networks.loss_of(params, task)
    generator = torch.Generator(stage.device).manual_seed(stage.seed)

    def step() -> None:
        value = loss(network, batch, generator)[0]
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()

    return step


def _writing(
    stage: StageContext, params: EvaluateParams, task: tasks.Task, network: Any, prompt: Tensor
) -> Callable[[], object]:
    blocks, block = params.length // params.block, params.block
    generator = torch.Generator().manual_seed(stage.seed)
    return lambda: sample_blocks(network, prompt, blocks, block, task.noise, block, generator)


def _in_turns(work: dict[str, Callable[[], object]], times: int, stage: StageContext) -> dict[str, float]:
    """Return the median seconds of each, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(_WARM_UP + times):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if stage.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
        stage.progress(turn + 1, _WARM_UP + times)
    return {name: float(np.median(values[_WARM_UP:])) for name, values in seconds.items()}
