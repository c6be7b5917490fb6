"""Parameters of the recipe `mel_codec`: log-mel frames to residual codes and back."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One codec of log-mel frames of clean speech."""

    width: int = Field(96, ge=4)
    """Channels of the ConvNeXt blocks."""
    blocks: int = Field(3, ge=1)
    """ConvNeXt blocks of the encoder, and of the decoder."""
    codebooks: int = Field(4, ge=1)
    """Residual codebooks."""
    codebook_size: int = Field(64, ge=2)
    """Codes of a codebook."""
    code_dim: int = Field(64, ge=1)
    """Width of a code."""
    commitment_weight: float = Field(0.25, ge=0)
    """Weight of the commitment term, per dimension of a vector."""
    code_ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of the codes."""
    restart_every: int = Field(100, ge=0)
    """Steps after which rarely used codes are restarted."""
    restart_below: int = Field(2, ge=1)
    """Uses in that time below which a code is restarted."""
    start_stretches: int = Field(64, ge=1)
    """Stretches whose vectors the codebooks start from."""
    steps: int = Field(1_500, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Stretches per step."""
    seconds: float = Field(1.0, gt=0)
    """Length of a stretch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    train_utterances: int = Field(100_000, ge=1)
    """Most training utterances of each data set."""
    test_utterances: int = Field(200, ge=1)
    """Most utterances of each set that is measured."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.tokenizers.audio.mel_codec", "components.quantizers.rvq")
