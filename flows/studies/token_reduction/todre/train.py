"""Tune a base on random numbers of random visual tokens, to see how much a ranking of selections owes to the base."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.bases import save_model
from components.compression import pool
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.question_answering import answer_loss
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.multimodal.models import asked, start
from flows.studies.multimodal.train import Order
from flows.studies.token_reduction.todre.reading import prepared

_ORDER = 5  # random stream of this stage


class Batch(NamedTuple):
    """Features fp16 (B, P, F), packed questions, and the visual tokens that stay, int64 (B, K)."""

    features: Tensor
    text: PackedBatch
    kept: Tensor


def train(stage: StageContext) -> None:
    """Tune the base of the stage's seed and write its model and curves."""
    params = stage.params
    model, description = start(stage)
    given = asked(stage, model, "train", params.train_scenes, params.first_scene)
    order = Order(len(given.scenes), params.batch_size, derive_seed(stage.seed, _ORDER))
    whole = model.rows**2

    def draw_batch(step: int, generator: torch.Generator) -> Batch:
        rows = order.rows(step)
        count = int(torch.randint(min(params.fewest_tokens, whole), whole + 1, (), generator=generator))
        kept = pool.random(torch.empty(len(rows), whole, 0), count, generator)
        return Batch(given.features[rows], given.texts.batch(rows), kept)

    def loss(model: nn.Module, batch: Batch, _: torch.Generator) -> tuple[Tensor, dict]:
        sequences = prepared(model, model.visual(batch.features), batch.kept, batch.text)
        return answer_loss(model.predicted(model.read(sequences), batch.text), batch.text), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats"},
    )
    save_model(stage.output, model, description)
    curves.write(stage.output)
