"""Train a vision-language model on nested sets of visual tokens, from the grounded base of its seed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.bases import save_model
from components.compression.nested_pool import check_scales, nested
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.question_answering import answer_loss
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.multimodal.models import asked, start

_ORDER = 3  # random stream of this stage


class Batch(NamedTuple):
    """Features fp16 (B, P, F), packed questions, and the scales of this step."""

    features: Tensor
    text: PackedBatch
    scales: tuple[int, ...]


def train(stage: StageContext) -> None:
    """Train one arm and write its model and curves."""
    params = stage.params
    model, description = start(stage)
    scales = check_scales(params.scales, model.rows**2)
    given = asked(stage, model, "train", params.train_scenes, params.first_scene)
    order = Order(len(given.scenes), params.batch_size, derive_seed(stage.seed, _ORDER))

    def draw_batch(step: int, generator: torch.Generator) -> Batch:
        rows = order.rows(step)
        chosen = scales
        if params.schedule == "one":
            chosen = (scales[int(torch.randint(len(scales), (), generator=generator))],)
        return Batch(given.features[rows], given.texts.batch(rows), chosen)

    def loss(model: nn.Module, batch: Batch, _: torch.Generator) -> tuple[Tensor, dict]:
        visual = nested(model, batch.features, batch.scales, params.pool_side)
        each = torch.stack([answer_loss(model(tokens, batch.text), batch.text) for tokens in visual])
        return each.mean(), {f"answer_loss_{scale}": nats for scale, nats in zip(batch.scales, each, strict=True)}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats", **{f"answer_loss_{scale}": "nats" for scale in scales}},
    )
    save_model(stage.output, model, description)
    curves.write(stage.output)


class Order:
    """Rows of every step: passes through all scenes, each in an order of its own; the same for every arm of a seed.

    Args:
        count: Scenes.
        batch: Scenes per step.
        seed: Seed of the orders.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._batch, self._seed = count, batch, seed
        self._passes: dict[int, Tensor] = {}

    def rows(self, step: int) -> Tensor:
        """Return the rows of a step, int64 (B,)."""
        places = torch.arange(step * self._batch, (step + 1) * self._batch)
        return torch.stack([self._pass(int(place) // self._count)[int(place) % self._count] for place in places])

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, number))
            self._passes[number] = torch.randperm(self._count, generator=generator)
        return self._passes[number]
