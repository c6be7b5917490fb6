"""The model of a stage, the encoder whose features it reads, and the scenes it is asked about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from components.bases import load_model
from components.errors import TesseraError
from components.multimodal.packed_qa import PackedTexts, pack_questions
from components.multimodal.scene_table import DENSE, SceneTable, read_scenes
from components.multimodal.vlm import VLM, features_of
from components.nn.vit import PatchViT
from flows.studies.context import StageContext
from flows.studies.multimodal.params import base_name

SCENE_TYPES = ("exist", "colour", "shape")
"""Questions about the scene as a whole."""


class MultimodalError(TesseraError):
    """A stage lacks the base or the data set that its parameters name."""


@dataclass(frozen=True)
class Asked:
    """Scenes with what a model reads of them.

    Attributes:
        scenes: The scenes.
        features: Features of their patches, fp16 (N, P, F).
        texts: Their packed questions.
    """

    scenes: SceneTable
    features: Tensor
    texts: PackedTexts

    def where(self, group: str) -> Tensor:
        """Return which questions belong to a group (general, scene or read), bool (Q,)."""
        kinds = {"general": pl.col("type") != DENSE, "scene": pl.col("type").is_in(SCENE_TYPES)}
        chosen = self.scenes.questions.select(kinds.get(group, pl.col("type") == DENSE)).to_series()
        return torch.from_numpy(chosen.to_numpy().copy())

    def names(self) -> list[str]:
        """Return a name for each question: its scene, and its number there."""
        asked = self.scenes.questions.select(pl.col("row"), pl.int_range(pl.len()).over("row").alias("number"))
        return [f"{row}-{number}" for row, number in asked.iter_rows()]


def start(stage: StageContext) -> tuple[VLM, dict[str, Any]]:
    """Return the base of the stage's seed and its description."""
    directory = _input(stage, f"bases/{base_name(stage.params, stage.seed)}")
    model = load_model(directory)
    return model, json.loads((directory / "config.json").read_text())


def encoder_of(stage: StageContext, model: VLM) -> PatchViT:
    """Return the encoder whose features a model reads, on the stage's device."""
    return load_model(_input(stage, f"bases/{model.encoder}")).encoder.to(stage.device)


def asked(stage: StageContext, model: VLM, split: str, count: int, first: int = 0) -> Asked:
    """Return scenes of a split with features and packed questions."""
    encoder = encoder_of(stage, model)
    directory = _input(stage, f"data/{stage.params.dataset}")
    scenes = read_scenes(directory, split, count, encoder.patch_size, first)
    types = sorted(scenes.questions["type"].unique())
    texts = pack_questions(scenes.questions, len(scenes), model.words, types)
    return Asked(scenes, features_of(encoder, scenes.pictures), texts)


def _input(stage: StageContext, name: str):
    if name not in stage.inputs:
        raise MultimodalError(
            f"{name} is not among the stage's inputs ({', '.join(sorted(stage.inputs))}); add it to the variant's "
            f"`{name.partition('/')[0]}`."
        )
    return stage.inputs[name]
