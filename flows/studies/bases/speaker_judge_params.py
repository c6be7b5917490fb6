"""Parameters of the recipe `speaker_judge`: vectors that say whether two utterances have one speaker."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One encoder, trained to tell the speakers of the training set apart."""

    channels: int = Field(128, ge=4)
    """Channels of the convolutions."""
    width: int = Field(64, ge=2)
    """Width of a vector."""
    steps: int = Field(1_500, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(32, ge=2)
    """Utterances per step."""
    seconds: float = Field(1.5, gt=0)
    """Longest stretch of an utterance that is heard in training."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    scale: float = Field(20.0, gt=0)
    """What cosines are multiplied by."""
    margin: float = Field(0.2, ge=0)
    """What the right cosine is made smaller by."""
    train_utterances: int = Field(100_000, ge=2)
    """Most training utterances of each data set."""
    test_utterances: int = Field(1_000, ge=2)
    """Most utterances of each set that pairs are made of."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.speech.speaker",)
