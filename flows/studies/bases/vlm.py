"""Recipe of the small vision-language models: captions align the projector, questions train what reads them.

stage 1   captions, language model frozen          both stages: grounding heads at the visual tokens, dropped
stage 2   eight questions a scene, packed           afterwards; the encoder is frozen, its features are cached
"""

from __future__ import annotations

import json
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor, nn

from components.bases import load_model, save_base, specification
from components.language.causal_lm import CausalLM
from components.metrics.tables import CurveTable, MetricTable
from components.multimodal.contrastive import ContrastiveViT
from components.multimodal.grounding import Grounded
from components.multimodal.packed_qa import PackedBatch, PackedTexts, pack_captions, pack_questions
from components.multimodal.patch_labels import label_sizes
from components.multimodal.question_answering import accuracies, answer_loss, answered
from components.multimodal.scene_table import DENSE, SceneTable, read_scenes
from components.multimodal.vlm import VLM, features_of
from components.multimodal.words import WordVocabulary
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.vlm_card import card
from flows.studies.context import StageContext

_WEIGHTS = 3  # random stream of this stage
_STATISTICS = 2_000  # scenes whose features give mean and deviation
_LOOKING = 0.05  # general questions answered better than without the picture, as a share, or the run is given up
UNITS = {"loss": "nats", "answer_loss": "nats", "grounding_loss": "nats", "general_accuracy": "share"}
UNITS |= {"read_accuracy": "share"}


class Plateau(Exception):
    """After `patience` steps a model answers no better than without its picture."""


class Batch(NamedTuple):
    """Features fp16 (B, P, F), what patches show (B, P, 6), and packed texts."""

    features: Tensor
    labels: Tensor
    text: PackedBatch


def train(stage: StageContext) -> None:
    """Train both stages, again from another initialisation where the picture is not looked at, and measure."""
    params = stage.params
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    bases = {name.removeprefix("bases/"): path for name, path in stage.inputs.items() if name.startswith("bases/")}
    models = {name: load_model(path) for name, path in bases.items()}
    (encoder_name,) = (name for name, each in models.items() if isinstance(each, ContrastiveViT))
    (language_name,) = (name for name, each in models.items() if isinstance(each, CausalLM))
    encoder = models[encoder_name].encoder.to(stage.device)
    words = WordVocabulary.load(bases[language_name])
    scenes = read_scenes(directory, "train", max(params.train_scenes, params.align_scenes), encoder.patch_size)
    # Once per run; a batch takes its rows, in half precision, to the device.
    features = features_of(encoder, scenes.pictures)
    language = json.loads((bases[language_name] / "config.json").read_text())
    description = specification(
        "components.multimodal.vlm",
        language=language,
        words=words.entries,
        rows=encoder.rows,
        feature_width=encoder.width,
        merge=params.merge,
        encoder=encoder_name,
    )
    types = sorted(scenes.questions["type"].unique())
    held_out = {
        split: read_scenes(directory, split, params.test_scenes, encoder.patch_size)
        for split in ("validation", "test", "combinations")
    }
    seen = {split: features_of(encoder, each.pictures) for split, each in held_out.items()}
    asked = {split: pack_questions(each.questions, len(each), words, types) for split, each in held_out.items()}
    curves = CurveTable()
    for attempt in range(params.attempts):
        torch.manual_seed(derive_seed(stage.seed, _WEIGHTS, attempt))
        model = VLM(
            language=load_model(bases[language_name]).train(),
            words=words.entries,
            rows=encoder.rows,
            feature_width=encoder.width,
            merge=params.merge,
            encoder=encoder_name,
        )
        model.projector.start_from(model.cells(features[:_STATISTICS]))
        grounded = Grounded(model, label_sizes(scenes.world))
        last = attempt == params.attempts - 1
        try:
            _align(stage, grounded, scenes, features, words, attempt, curves)
            watch = None if last else (seen["validation"], asked["validation"], held_out["validation"])
            _instruct(stage, grounded, scenes, features, pack(scenes, words, types, params), attempt, curves, watch)
            break
        except Plateau:
            continue
    table = MetricTable()
    facts = measure(stage, model, held_out, seen, asked, table)
    table.write(stage.output)
    curves.write(stage.output)
    words.save(stage.output)
    text = card(stage, model, facts, curves.frame(), attempt, encoder_name, language_name)
    save_base(stage.output, model, description, text)


def pack(scenes: SceneTable, words: WordVocabulary, types: list[str], params) -> PackedTexts:
    """Return the packed questions of the scenes of stage 2."""
    count = min(len(scenes), params.train_scenes)
    return pack_questions(scenes.questions.filter(pl.col("row") < count), count, words, types)


def _align(stage, grounded: Grounded, scenes: SceneTable, features: Tensor, words, attempt: int, curves) -> None:
    """Stage 1: the projector learns to show a frozen language model what captions say."""
    params = stage.params
    count = min(len(scenes), params.align_scenes)
    texts = pack_captions(scenes.captions[:count], words)
    grounded.model.language.requires_grad_(False)

    def loss(grounded: nn.Module, batch: Batch, _: torch.Generator) -> tuple[Tensor, dict]:
        states, answers = _read(grounded.model, batch)
        grounding = grounded.loss(states, batch.labels)
        return answers + params.grounding_weight * grounding, {"answer_loss": answers, "grounding_loss": grounding}

    optimisation = _optimisation(params, params.align_steps, params.align_warmup_steps)
    found = _fit(stage, grounded, texts, scenes, features, loss, optimisation, f"align-{attempt}")
    _keep(curves, found, f"align_{attempt}_" if attempt else "align_")
    grounded.model.language.requires_grad_(True)


def _instruct(stage, grounded: Grounded, scenes, features: Tensor, texts: PackedTexts, attempt, curves, watch) -> None:
    """Stage 2: projector and language model learn to answer.

    Raises:
        Plateau: At step `patience` the picture does not help, and another attempt is left.
    """
    params = stage.params
    dense = texts.types.index(DENSE) if DENSE in texts.types else -1

    def loss(grounded: nn.Module, batch: Batch, _: torch.Generator) -> tuple[Tensor, dict]:
        model = grounded.model
        states = model.read(model.prepare(model.visual(batch.features), batch.text))
        logits = model.predicted(states, batch.text)
        answers, grounding = answer_loss(logits, batch.text), grounded.loss(states, batch.labels)
        series = {"answer_loss": answers, "grounding_loss": grounding, **accuracies(logits, batch.text, dense)}
        return answers + params.grounding_weight * grounding, series

    def after_step(grounded: nn.Module, step: int, _: torch.Generator) -> None:
        if watch is not None and step + 1 == params.patience and not _looks(stage, grounded.model, *watch):
            raise Plateau

    optimisation = _optimisation(params, params.steps, params.warmup_steps)
    name = f"instruct-{attempt}"
    found = _fit(stage, grounded, texts, scenes, features, loss, optimisation, name, after_step)
    _keep(curves, found, f"attempt_{attempt}_" if attempt else "")


def _read(model: VLM, batch: Batch) -> tuple[Tensor, Tensor]:
    states = model.read(model.prepare(model.visual(batch.features), batch.text))
    return states, answer_loss(model.predicted(states, batch.text), batch.text)


def _fit(stage, grounded, texts, scenes, features, loss, optimisation, name: str, after_step=None) -> CurveTable:
    def draw_batch(step: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(texts), (stage.params.batch_size,), generator=generator)
        return Batch(features[rows], scenes.labels[rows].long(), texts.batch(rows))

    return fit(
        grounded,
        draw_batch,
        loss,
        optimisation,
        seed=derive_seed(stage.seed, *name.encode()),
        device=stage.device,
        checkpoint=stage.checkpoint / name,
        progress=stage.progress,
        after_step=after_step,
        units=UNITS,
    )


def _optimisation(params, steps: int, warmup_steps: int) -> Optimisation:
    return Optimisation(steps, params.learning_rate, warmup_steps, weight_decay=params.weight_decay)


def _keep(curves: CurveTable, found: CurveTable, prefix: str) -> None:
    for series, step, value, unit in found.frame().iter_rows():
        curves.add(prefix + series, step, value, unit=unit)


def _looks(stage, model: VLM, features: Tensor, asked: PackedTexts, scenes: SceneTable) -> bool:
    """Tell whether general questions are answered better with the picture than with zeros in its place."""
    count = min(stage.params.patience_scenes, len(scenes))
    questions = scenes.questions.filter(pl.col("row") < count)
    general = torch.from_numpy((questions["type"] != DENSE).to_numpy().copy())
    rows = torch.arange(count)
    few = PackedTexts(*(getattr(asked, name)[rows] for name in _COLUMNS), asked.types)
    shares = [
        float(answered(model, visual, few)[general].double().mean())
        for visual in (_with_picture(stage, model, features), _without(stage, model))
    ]
    return shares[0] - shares[1] >= _LOOKING


_COLUMNS = ("tokens", "segments", "places", "targets", "kinds", "lengths")


def _with_picture(stage, model: VLM, features: Tensor):
    return lambda rows: model.visual(features[rows].to(stage.device))


def _without(stage, model: VLM):
    width = model.language.config.width
    return lambda rows: torch.zeros(len(rows), model.rows**2, width, device=stage.device)


def measure(
    stage: StageContext,
    model: VLM,
    scenes: dict[str, SceneTable],
    features: dict[str, Tensor],
    asked: dict[str, PackedTexts],
    table: MetricTable,
) -> dict[str, float]:
    """Measure answers with the picture, with zeros in its place, and on combinations that no training showed."""
    facts: dict[str, float] = {}
    for name, split, visual in (
        ("", "test", _with_picture(stage, model, features["test"])),
        ("blind", "test", _without(stage, model)),
        ("combinations", "combinations", _with_picture(stage, model, features["combinations"])),
    ):
        right = answered(model, visual, asked[split])
        frame = scenes[split].questions.with_columns(right=pl.Series(right.numpy()).cast(pl.Float64))
        dense = pl.col("type") == DENSE
        prefix = f"{name}_" if name else ""
        parts = {f"{prefix}general_accuracy": frame.filter(~dense), f"{prefix}read_accuracy": frame.filter(dense)}
        if name == "blind":
            # The gate's name.
            parts = {"blind_accuracy": frame.filter(~dense), "blind_read_accuracy": frame.filter(dense)}
        for metric, part in parts.items():
            if len(part):
                table.add_items(metric, part["right"], unit="share")
                facts[metric] = float(part["right"].mean())
        if not name:
            for (kind,), part in sorted(frame.group_by("type")):
                value = float(part["right"].mean())
                variance = value * (1 - value) / len(part)
                table.add("accuracy", value, unit="share", at={"type": kind}, samples=len(part), variance=variance)
                facts[f"type {kind}"] = value
    return facts
