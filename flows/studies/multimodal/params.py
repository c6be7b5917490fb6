"""Parameters and metrics of the study `multimodal`: a small vision-language model answers questions about scenes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What a train stage of the study is given."""

    dataset: Literal["shapes-48", "llava-v1.5-mix665k"] = "shapes-48"
    """Data set of pictures and questions."""
    base: str = "vlm-lite"
    """Base that training starts from: this name for seed 0, and with `-s<seed>` behind it for the others."""
    scales: tuple[int, ...] = (36, 9, 1)
    """Numbers of visual tokens that are trained, each a square."""
    schedule: Literal["all", "one"] = "all"
    """All scales in every step, or one that is drawn uniformly."""
    pool_side: Literal["after", "before"] = "after"
    """Pool behind the projector, or before it."""
    first_scene: int = Field(30_000, ge=0)
    """Training scenes that are left out, because the base learned from them."""
    train_scenes: int = Field(4_800, ge=1)
    """Scenes to learn from; fewer where there are not as many."""
    steps: int = Field(300, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Scenes per step."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""


class EvaluateParams(TrainParams):
    """What an evaluate stage of the study is given."""

    test_scales: tuple[int, ...] = (36, 9, 1)
    """Numbers of visual tokens that are tested."""
    reduce: Literal["pool", "uniform", "sequential", "random"] = "pool"
    """How the finest grid is reduced: averages of blocks, or some of its tokens."""
    random_draws: int = Field(5, ge=1)
    """Draws of `random` for each scene; answers are averaged over them."""
    oracle: bool = False
    """Choose for each question the fewest tokens that answer it."""
    test_scenes: int = Field(1_000, ge=1)
    """Scenes of the test split, with eight questions each; fewer where there are not as many."""
    sample_scenes: int = Field(6, ge=1)
    """Scenes kept for figures."""


METRICS = {
    "accuracy": Metric(
        "percent",
        "higher",
        "Share of questions answered rightly; `questions` is general (all but read), scene (exist, colour, shape) or "
        "read (glyphs of the sign), `tokens` the number of visual tokens.",
    ),
    "accuracy_by_type": Metric("percent", "higher", "Share of the questions of one type answered rightly."),
    "accuracy_renumbered": Metric(
        "percent", "higher", "Accuracy of selected tokens that get the positions 1, 2, ... instead of keeping theirs."
    ),
    "above_blind": Metric("points", "higher", "Accuracy minus that of the same model with zeros for visual tokens."),
    "drop": Metric("points", "lower", "Accuracy with the finest grid minus accuracy with 9 tokens."),
    "drop_excess": Metric("points", "neither", "Drop of the read questions minus three times that of scene questions."),
    "language_gflops": Metric(
        "GFLOP", "lower", "Forward cost of the language model's blocks for one question, its visual tokens included."
    ),
    "oracle_accuracy": Metric("percent", "higher", "Share of questions that the model answers at one scale or more."),
    "oracle_tokens": Metric(
        "tokens", "lower", "Visual tokens of the smallest scale that answers rightly, the smallest of all if none does."
    ),
    "oracle_gain": Metric("points", "higher", "Oracle accuracy minus that of the best fixed scale."),
    "oracle_gain_above_blind": Metric(
        "points", "higher", "Oracle gain minus that of the same oracle over models with zeros for visual tokens."
    ),
    "oracle_over_seeds": Metric(
        "percent", "neither", "Share of questions that one of the seeds' models answers with the finest grid."
    ),
    "gap": Metric(
        "points",
        "higher",
        "Accuracy on general questions minus that of the model trained for this scale only; zero at 1 token where that "
        "model is less than 10 points above blind, which leaves the scale out.",
    ),
    "mean_gap": Metric("points", "higher", "The gap averaged over all seeds: a point estimate, without an interval."),
}


def base_name(params: TrainParams, seed: int) -> str:
    """Return the base that a seed's training starts from."""
    return f"{params.base}-s{seed}" if seed else params.base


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    return ("components.multimodal.vlm", "components.multimodal.contrastive", "components.language.causal_lm")
