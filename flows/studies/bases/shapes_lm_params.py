"""Parameters of the recipe `shapes_lm`: a language model of captions, questions and answers."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One language model of the texts of one data set of scenes."""

    width: int = Field(128, ge=4)
    """Channels of the transformer."""
    layers: int = Field(6, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    context: int = Field(256, ge=16)
    """Positions: start, visual tokens and the longest text."""
    train_scenes: int = Field(40_000, ge=2)
    """Scenes whose texts are learned, the first of the training split; fewer where there are not as many."""
    test_scenes: int = Field(1_000, ge=2)
    """Scenes whose texts are measured, the first of the test split; fewer where there are not as many."""
    steps: int = Field(1_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(32, ge=1)
    """Scenes per step: a caption and eight questions each."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.language.causal_lm",)
