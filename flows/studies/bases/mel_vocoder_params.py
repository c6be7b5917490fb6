"""Parameters of the recipe `mel_vocoder`: log-mel frames to a waveform."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One vocoder of clean speech at 8 kHz."""

    width: int = Field(128, ge=4)
    """Channels of the ConvNeXt blocks."""
    blocks: int = Field(4, ge=1)
    """ConvNeXt blocks."""
    steps: int = Field(2_500, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Stretches per step."""
    seconds: float = Field(0.5, gt=0)
    """Length of a stretch."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    mel_weight: float = Field(15.0, ge=0)
    """Weight of the mel error; that of the STFT error is 1."""
    train_utterances: int = Field(100_000, ge=1)
    """Most training utterances of each data set."""
    test_utterances: int = Field(200, ge=1)
    """Most utterances of each set that is measured."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.audio.mel_vocoder",)
