"""What a stage works with: the task, and the network with what is needed to train or decode it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.bases import load_model, specification
from components.diffusion.objectives import (
    CausalObjective,
    DivergenceObjective,
    MaskPredictObjective,
    Objective,
    ReparameterizedObjective,
    noise_of,
)
from components.diffusion.schedules import Grid, schedule_of
from components.diffusion.sequence_denoiser import SPECIALS, SequenceDenoiser
from components.tokenizers.text import bpe
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.params import EvaluateParams, TrainParams
from flows.studies.discrete_diffusion.sources import TOKENIZER_FILE, Paraphrases, Task, Translations

DENOISER = "components.diffusion.sequence_denoiser"
# The directory of a data set by task.
_DATA = {"paraphrase": "data/shapes", "translation": "data/multi30k"}


def describe(params: TrainParams, words: int) -> dict[str, Any]:
    """Describe the network of an arm over so many words, for `components.bases.construct`."""
    return specification(
        DENOISER,
        words=words,
        length_head=params.objective != "causal",
        context=params.context,
        width=params.width,
        encoder_layers=params.encoder_layers,
        decoder_layers=params.decoder_layers,
        heads=params.heads,
        feed_forward=params.feed_forward,
        dropout=params.dropout,
        causal=params.objective == "causal",
        **({"ends": True} if params.objective == "causal" else {}),
    )


def parameters(params: TrainParams, words: int) -> int:
    """Return how many parameters the network of an arm has; built without memory."""
    import torch

    with torch.device("meta"):
        model = importlib.import_module(DENOISER).build(**describe(params, words)["arguments"])
    return sum(parameter.numel() for parameter in model.parameters())


def grid_of(params: TrainParams) -> Grid:
    """Return the steps of the process."""
    return Grid(schedule_of(params.schedule), params.diffusion_steps)


def objective_of(params: TrainParams, model: SequenceDenoiser) -> Objective:
    """Return what the arm's network is trained for."""
    if params.objective == "causal":
        return CausalObjective(params.label_smoothing)
    if params.objective == "mask_predict":
        return MaskPredictObjective(params.label_smoothing)
    noise, grid = noise_of(params.noise, model), grid_of(params)
    if params.objective == "divergence":
        return DivergenceObjective(noise, grid)
    return ReparameterizedObjective(noise, grid, params.weighting, params.coupled, params.label_smoothing)


def words_of(model: SequenceDenoiser) -> int:
    """Return how many words a network may predict."""
    return model.vocabulary_size - len(SPECIALS)


@dataclass(frozen=True)
class Decodable:
    """A trained network and its task.

    Attributes:
        model: In evaluation mode, on the stage's device.
        task: What it writes.
    """

    model: SequenceDenoiser
    task: Task


def load(stage: StageContext) -> Decodable:
    """Return the network that an evaluation decodes: the arm's training, or the base of its seed."""
    params: EvaluateParams = stage.params
    own = load_model(stage.inputs["train"]).to(stage.device) if "train" in stage.inputs else None
    if params.task == "paraphrase":
        return Decodable(own, Paraphrases(stage.inputs[_DATA["paraphrase"]]))
    if own is not None:
        return Decodable(own, translations(stage))
    return load_translator(_base(stage), stage.inputs[_DATA["translation"]], stage.device)


def load_translator(base: Path, directory: Path, device: str) -> Decodable:
    """Return a translation base with its tokenizer."""
    model = load_model(base).to(device)
    return Decodable(model, Translations(directory, bpe.load(base / TOKENIZER_FILE), model.network.context))


def translations(stage: StageContext) -> Translations:
    """Return the translation task in the byte pairs of the base of the stage's seed, for networks of its own."""
    tokenizer = bpe.load(_base(stage) / TOKENIZER_FILE)
    return Translations(stage.inputs[_DATA["translation"]], tokenizer, stage.params.context)


def _base(stage: StageContext) -> Path:
    return stage.inputs[f"bases/{base_name(stage.params.base, stage.seed)}"]


def base_name(base: str, seed: int) -> str:
    """Return the base of a seed: seed 0 has the plain name."""
    return base if seed == 0 else f"{base}-s{seed}"
