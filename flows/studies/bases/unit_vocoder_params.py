"""Parameters of the recipe `unit_vocoder`: mel frames of semantic tokens and a speaker."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One network; the mel vocoder that renders its frames stays as it is."""

    streams: tuple[tuple[int, int], ...] = ((3, 200), (3, 50), (3, 100), (3, 500), (1, 200), (2, 200), (4, 200))
    """Layer and number of codes of each stream that it reads; the first one is what is measured."""
    width: int = Field(128, ge=4)
    """Channels."""
    blocks: int = Field(4, ge=1)
    """ConvNeXt blocks."""
    steps: int = Field(2_500, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Stretches per step."""
    seconds: float = Field(1.0, gt=0)
    """Length of a stretch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    first_share: float = Field(0.5, ge=0, le=1)
    """Share of stretches that read the first stream alone; the others read any of the streams, at least one."""
    unknown_share: float = Field(0.1, ge=0, le=1)
    """Share of stretches whose speaker is not told."""
    train_utterances: int = Field(100_000, ge=1)
    """Most training utterances of each data set."""
    test_utterances: int = Field(600, ge=2)
    """Most test utterances that are rendered and read."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its models by."""
    return (
        "components.speech.unit_vocoder",
        "components.audio.mel_vocoder",
        "components.tokenizers.audio.ssl_kmeans",
        "components.speech.ssl_encoder",
        "components.speech.recogniser",
    )
