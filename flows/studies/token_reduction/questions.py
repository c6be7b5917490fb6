"""Questions about scenes, put to the vision-language model of a stage's seed.

Letters: `B` scenes of a batch, `P` patches, `Q` questions in all, `V` words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from components.bases import load_model
from components.errors import TesseraError
from components.metrics.tables import MetricTable
from components.multimodal.packed_qa import PackedBatch, pack_questions
from components.multimodal.scene_table import read_scenes
from components.multimodal.vlm import VLM, Seeing, features_of
from flows.studies.context import StageContext
from flows.studies.multimodal.models import Asked
from flows.studies.token_reduction.params import base_name

GROUPS = ("general", "read")
_BATCH = 32

Logits = Callable[[Tensor, PackedBatch], Tensor]
"""Logits where something is predicted, (M, V), of scenes (B,) int64 on the CPU and their packed questions."""


class ReductionError(TesseraError):
    """A stage lacks the base or the data set that its parameters name."""


def given(stage: StageContext, name: str) -> Path:
    """Return an input of a stage, such as "bases/vlm-base".

    Raises:
        ReductionError: It is not among the stage's inputs.
    """
    if name not in stage.inputs:
        raise ReductionError(
            f"{name} is not among the stage's inputs ({', '.join(sorted(stage.inputs))}); add it to the variant's "
            f"`{name.partition('/')[0]}`."
        )
    return stage.inputs[name]


def seeing(stage: StageContext) -> Seeing:
    """Return the vision-language model of the stage's seed and its encoder, on the stage's device."""
    model = load_model(given(stage, f"bases/{base_name(stage.params.base, stage.seed)}"))
    encoder = load_model(given(stage, f"bases/{model.encoder}")).encoder
    return Seeing(model.to(stage.device), encoder.to(stage.device))


def asked(stage: StageContext, model: Seeing, split: str = "test") -> Asked:
    """Return the scenes that a stage asks about, with the features of all their patches and packed questions."""
    directory = given(stage, f"data/{stage.params.dataset}")
    scenes = read_scenes(directory, split, stage.params.test_scenes, model.encoder.patch_size)
    types = sorted(scenes.questions["type"].unique())
    texts = pack_questions(scenes.questions, len(scenes), model.model.words, types)
    return Asked(scenes, features_of(model.encoder, scenes.pictures), texts)


@torch.no_grad()
def answers(stage: StageContext, about: Asked, logits: Logits) -> Tensor:
    """Return whether each question is answered rightly, float64 (Q,)."""
    right = []
    for rows in torch.arange(len(about.scenes)).split(_BATCH):
        text = PackedBatch(*(part.to(stage.device) for part in about.texts.batch(rows)))
        right.append((logits(rows, text).argmax(-1) == text.targets).cpu())
    return torch.cat(right).double()


def blind(stage: StageContext, model: VLM) -> Logits:
    """Return the logits of a model that reads zeros in place of its visual tokens."""
    width = model.language.config.width
    return lambda rows, text: model(torch.zeros(len(rows), model.rows**2, width, device=stage.device), text)


def add_by_group(
    table: MetricTable,
    about: Asked,
    metric: str,
    values: Tensor,
    *,
    unit: str,
    at: dict[str, object],
    groups: Sequence[str] = GROUPS,
) -> None:
    """Add a metric of every question, float64 (Q,), under the condition `questions` = its group."""
    names = about.names()
    for group in groups:
        chosen = about.where(group)
        if chosen.any():
            items = [name for name, own in zip(names, chosen.tolist(), strict=True) if own]
            table.add_items(metric, values[chosen].tolist(), unit=unit, at={"questions": group, **at}, items=items)
