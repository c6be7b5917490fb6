"""What a language model reads of each picture, and what it answers: one way of reducing tokens at one budget.

Letters: `B` scenes of a batch, `N` visual tokens of a picture, `K` tokens kept, `M` questions of a batch, `Q` in all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from components.compression import fastv, layer_drop, pool, prune
from components.compression.layer_drop import DropRule
from components.compression.merging.plan import log_sizes, reduce_to
from components.data.pixels import to_unit
from components.multimodal.object_patches import ObjectPatches, read_object_patches
from components.multimodal.packed_qa import PackedBatch, pack_questions
from components.multimodal.scene_table import read_scenes
from components.multimodal.vlm import VLM, Prepared, Seeing
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.multimodal.models import Asked
from flows.studies.token_reduction.questions import given

BATCH = 32
_DRAWS = 4  # random stream of this stage


@dataclass(frozen=True)
class Pictures:
    """Scenes that are asked about.

    Attributes:
        about: Scenes, features of their patches and packed questions.
        attention: Attention of the encoder's class token to each visual token's cell, (scenes, N).
        objects: Which of the scenes' objects each cell shows.
    """

    about: Asked
    attention: Tensor
    objects: ObjectPatches


class BatchRead(NamedTuple):
    """What was made of a batch.

    Attributes:
        logits: Of the answers, (M, V).
        kept: Visual tokens that were read, int64 (B, K), or (M, K) where every question has its own; None if whole.
        layers: Layer from which on each question saw no visual token, int64 (M,); None where none is ever dropped.
    """

    logits: Tensor
    kept: Tensor | None = None
    layers: Tensor | None = None


class Read(NamedTuple):
    """The same of all scenes, on the CPU, with whether each question is answered rightly, float64 (Q,)."""

    right: Tensor
    kept: Tensor | None
    layers: Tensor | None


How = Callable[[Tensor, PackedBatch], BatchRead]
"""Reads scenes (B,), indices on the CPU, with their packed questions."""


@torch.no_grad()
def pictures(stage: StageContext, seeing: Seeing, split: str = "test") -> Pictures:
    """Return the scenes that a stage asks about; the encoder sees each once."""
    model, encoder = seeing
    directory = given(stage, f"data/{stage.params.dataset}")
    scenes = read_scenes(directory, split, stage.params.test_scenes, encoder.patch_size)
    features, attention = [], []
    for part in scenes.pictures.split(BATCH):
        hidden = encoder.hidden(to_unit(part.to(stage.device)), encoder.layers - 1)
        seen = prune.class_attention(encoder, hidden)
        features.append(hidden[:, 1:].half().cpu())
        attention.append(model.cells(seen[..., None]).mean(-1).cpu())
    types = sorted(scenes.questions["type"].unique())
    texts = pack_questions(scenes.questions, len(scenes), model.words, types)
    side = encoder.patch_size * model.merge
    objects = read_object_patches(directory, split, len(scenes), scenes.world.objects[1], side)
    return Pictures(Asked(scenes, torch.cat(features), texts), torch.cat(attention), objects)


@torch.no_grad()
def read(stage: StageContext, given: Pictures, how: How) -> Read:
    """Ask all questions."""
    right, kept, layers = [], [], []
    for rows in torch.arange(len(given.about.scenes)).split(BATCH):
        text = batch_of(stage, given, rows)
        found = how(rows, text)
        right.append((found.logits.argmax(-1) == text.targets).cpu())
        kept.append(found.kept)
        layers.append(found.layers)
    joined = [None if parts[0] is None else torch.cat(parts).cpu() for parts in (kept, layers)]
    return Read(torch.cat(right).double(), *joined)


def batch_of(stage: StageContext, given: Pictures, rows: Tensor) -> PackedBatch:
    """Return the packed questions of some scenes on the stage's device."""
    return PackedBatch(*(part.to(stage.device) for part in given.about.texts.batch(rows)))


def reader(stage: StageContext, model: VLM, given: Pictures, count: int, draw: int = 0) -> How:
    """Return how an arm reads pictures with `count` visual tokens.

    Args:
        stage: The stage; its parameters say what is selected and whether it is dropped later.
        model: The model, on the stage's device.
        given: The scenes.
        count: K.
        draw: Number of the random draw.
    """
    params = stage.params
    rule = DropRule(params.check_layers, params.threshold, params.rows) if params.drop == "adaptive" else None
    if params.selection == "blind":
        return lambda rows, text: BatchRead(model(torch.zeros_like(_visual(stage, model, given, rows)), text))
    if params.selection == "all":
        return lambda rows, text: _read(model, model.prepare(_visual(stage, model, given, rows), text), text, rule)
    if params.selection == "fastv":
        return lambda rows, text: _fastv(model, _visual(stage, model, given, rows), text, count)
    if params.selection == "tome":
        method = importlib.import_module("components.compression.merging.tome").build()
        return lambda rows, text: _merged(model, method, _visual(stage, model, given, rows), text, count)
    select = selection(stage, count, draw)

    def selected(rows: Tensor, text: PackedBatch) -> BatchRead:
        visual = _visual(stage, model, given, rows)
        kept = select(visual, given.attention[rows].to(stage.device), count)
        return _read(model, prepared(model, visual, kept, text), text, rule)._replace(kept=kept)

    return selected


def selection(stage: StageContext, count: int, draw: int = 0) -> prune.Select:
    """Return the selection of a stage; one that draws goes on from batch to batch."""
    params = stage.params
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _DRAWS, count, draw))
    return prune.build(params.selection, start=params.start, remove_mean=params.remove_mean, generator=generator)


def prepared(model: VLM, visual: Tensor, kept: Tensor, text: PackedBatch) -> Prepared:
    """Lay some of the visual tokens (B, N, D) and packed texts into sequences; all positions are the original ones."""
    return model.prepare(pool.kept(visual, kept), text, places=kept + 1, text_place=visual.shape[1] + 1)


def _visual(stage: StageContext, model: VLM, given: Pictures, rows: Tensor) -> Tensor:
    return model.visual(given.about.features[rows].to(stage.device))


def _read(model: VLM, sequences: Prepared, text: PackedBatch, rule: DropRule | None) -> BatchRead:
    if rule is None:
        return BatchRead(model.predicted(model.read(sequences), text))
    found = layer_drop.read(model, sequences, text, rule)
    return BatchRead(model.predicted(found.states, text), layers=found.layers)


def _fastv(model: VLM, visual: Tensor, text: PackedBatch, count: int) -> BatchRead:
    found = fastv.read(model, model.prepare(visual, text), text, count)
    return BatchRead(model.logits(found.states), kept=found.kept)


def _merged(model: VLM, method, visual: Tensor, text: PackedBatch, count: int) -> BatchRead:
    """Read merged tokens at the places that they grew from; each is attended to like as many as it stands for."""
    tokens, sizes, plans = reduce_to(method, visual, count)
    places = torch.arange(visual.shape[1], device=visual.device).expand(len(visual), -1)
    for plan in plans:
        places = places.gather(1, plan.kept)
    places, order = places.sort(1)
    sequences = prepared(model, _placed(visual, places, pool.kept(tokens, order)), places, text)
    bias = torch.zeros(len(visual), 1, 1, sequences.tokens.shape[1], device=visual.device)
    bias[..., 1 : 1 + count] = log_sizes(sizes.gather(1, order))
    weighed = torch.where(sequences.mask, bias, -torch.inf)
    return BatchRead(model.predicted(model.read(sequences._replace(mask=weighed)), text), kept=places)


def _placed(visual: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    return visual.scatter(1, places[..., None].expand_as(tokens), tokens)
