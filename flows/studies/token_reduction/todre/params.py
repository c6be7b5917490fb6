"""Parameters and metrics of ToDRE: diverse visual tokens behind the encoder, none of them in late layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.studies.token_reduction import params as study

_PARTS = "`questions` is general (all but read), read or all; `tokens` the number of visual tokens."


class TrainParams(study.TrainParams):
    """What the train stage of the robustness variant is given; the other arms train nothing."""

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
    fewest_tokens: int = Field(14, ge=1)
    """Fewest visual tokens that a training step leaves; the number is drawn uniformly up to all of them."""


class EvaluateParams(TrainParams, study.EvaluateParams):
    """What an evaluate stage is given."""

    selection: Literal["all", "blind", "kcenter", "maxsum", "cls_topk", "random", "uniform", "fastv", "tome"] = (
        "kcenter"
    )
    """Which visual tokens the language model reads; `blind` gives it zeros in place of all of them."""
    start: Literal["cls_max", "random", "center", "far_mean"] = "cls_max"
    """Token that a diverse choice starts from."""
    remove_mean: bool = False
    """Take distances of a diverse choice after the mean of a picture's tokens has been removed."""
    drop: Literal["never", "adaptive", "sweep"] = "never"
    """Drop visual tokens inside the language model: never, by the rule, or at every layer in turn."""
    check_layers: tuple[int, ...] = (5,)
    """Layers, from 0, at which the rule is asked."""
    threshold: float = Field(0.1, gt=0)
    """tau of the rule."""
    rows: Literal["all", "last"] = "all"
    """Rows of the attention that stand for the question."""
    swept_checks: tuple[int, ...] = (3, 4, 5)
    """Single layers at which the rule is asked in the sweep."""
    swept_thresholds: tuple[float, ...] = (0.03, 0.05, 0.1, 0.15)
    """Values of tau in the sweep."""
    budgets: tuple[int, ...] = (14, 29, 48, 72)
    """Numbers of visual tokens, of the grid's 144."""
    draws: int = Field(1, ge=1)
    """Draws of a random selection for each scene; answers are averaged over them."""
    test_scenes: int = Field(500, ge=2)
    """Scenes of the test split; fewer where there are not as many."""
    timed: bool = False
    """Also time the prefill of one question at the first budget, alone and in a batch; written to the log only."""
    timed_batch: int = Field(32, ge=1)
    """Questions of the timed batch."""
    timed_runs: int = Field(5, ge=1)
    """Timed repetitions, after as many third parts of it for warming up."""


METRICS = {
    "best_above_blind": Metric(
        "points", "higher", "The larger, on average, of the arms kcenter and cls_topk's accuracy above blind."
    ),
    "retained": Metric(
        "percent", "higher", f"Accuracy above blind over that of the model with all visual tokens; {_PARTS}"
    ),
    "fired": Metric("percent", "neither", f"Share of questions for which the rule drops the visual tokens; {_PARTS}"),
    "fired_by_type": Metric("percent", "neither", "The same share among the questions of one type."),
    "fallen_by_type": Metric(
        "percent",
        "neither",
        "Share of the questions of one type for which `layer` is the first, from 1 on, whose attention from text to "
        "visual tokens lies below 0.1; the number of layers stands for none.",
    ),
    "dropped_accuracy": Metric(
        "percent", "higher", f"Accuracy when all visual tokens are dropped from `layer` on; {_PARTS}"
    ),
    "dropped_by_type": Metric("percent", "higher", "The same accuracy for the questions of one type."),
    "drop_cost": Metric("points", "lower", f"Accuracy without a drop minus that with one from `layer` on; {_PARTS}"),
    "rule_cost": Metric(
        "points",
        "lower",
        f"Accuracy without a drop minus that by a rule of one `check` layer and one `threshold`; {_PARTS}",
    ),
    "rule_fired": Metric(
        "percent", "neither", f"Share of questions for which that rule drops the visual tokens; {_PARTS}"
    ),
    "text_to_visual": Metric(
        "share", "neither", "Attention of a question's tokens to visual tokens in a `layer`, averaged over heads."
    ),
    "covering_radius": Metric(
        "cosine distance", "lower", "Largest distance of a visual token to the nearest that is kept."
    ),
    "covering_radius_centred": Metric(
        "cosine distance", "lower", "The same after the mean of a picture's tokens has been removed."
    ),
    "kept_distance": Metric("cosine distance", "higher", "Mean distance between the kept tokens of a picture."),
    "kept_distance_centred": Metric(
        "cosine distance", "higher", "The same after the mean of a picture's tokens has been removed."
    ),
    "objects_hit": Metric("percent", "higher", "Share of objects that at least one kept token shows."),
    "cache_kib": Metric("KiB", "lower", "Keys and values that one question keeps for decoding, in single precision."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    chosen = study.components(params, kind)
    if kind == "evaluate" and params.selection == "tome":
        chosen += ("components.compression.merging.tome",)
    return chosen
