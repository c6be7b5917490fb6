"""Parameters and metrics of the study `language-model`: what is changed in a language model, and what it does to it.

A paper adds its own in a params module of its package, which builds on these.
"""

from __future__ import annotations

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """How a language model is trained."""

    context: int = Field(40, ge=4)
    """Tokens of a sequence, and positions of the model."""
    width: int = Field(64, ge=4)
    """Channels of a token."""
    layers: int = Field(2, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    batch: int = Field(64, ge=1)
    """Sequences of one step."""
    steps: int = Field(1500, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""


class EvaluateParams(TrainParams):
    """How a language model is evaluated."""


METRICS = {
    "exact_match": Metric("share", "higher", "Whether the greedy answer is the right one, character by character."),
    "nats_per_token": Metric("nats/token", "lower", "-ln P of the right tokens, each given the right ones before it."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name; the study itself leaves nothing to choose."""
    return ()
