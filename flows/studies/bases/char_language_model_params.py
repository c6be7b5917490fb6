"""Parameters of the recipe `char_language_model`: a small causal language model over the characters of one text."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One model, trained on windows that begin anywhere in the training part of its text."""

    width: int = Field(96, ge=8)
    """Channels of a character."""
    layers: int = Field(3, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    context: int = Field(64, ge=2)
    """Characters of a training window, and positions of the model."""
    batch: int = Field(16, ge=1)
    """Windows of one step."""
    steps: int = Field(3000, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    held_out_windows: int = Field(1000, ge=2)
    """Most held-out windows that are measured, side by side from the front."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that a base chooses by name: its characters are a BPE without merges."""
    return ("components.tokenizers.text.bpe",)
