"""Parameters of the recipe `translation_diffusion`: masked diffusion from German to English descriptions."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One encoder-decoder trained by the reparameterized loss, on pairs of short sentences."""

    vocabulary_size: int = Field(2000, ge=60)
    """Byte pairs of both languages together."""
    diffusion_steps: int = Field(50, ge=1)
    """T, steps of the process in training."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the cross entropy."""
    width: int = Field(128, ge=4)
    """Channels of a token."""
    encoder_layers: int = Field(3, ge=1)
    """Blocks of the encoder."""
    decoder_layers: int = Field(3, ge=1)
    """Blocks of the decoder."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    feed_forward: int = Field(256, ge=4)
    """Hidden channels of the MLPs."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of attention weights and of residual updates dropped in training."""
    context: int = Field(40, ge=18)
    """Most tokens of a source."""
    batch: int = Field(64, ge=1)
    """Pairs of a step."""
    steps: int = Field(6000, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(300, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of matrices."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the average of the weights that is kept."""
    test_sentences: int = Field(500, ge=2)
    """Validation sentences that the base is measured on; the test sentences are left to the papers."""
    decode_steps: int = Field(16, ge=1)
    """Steps of routed decoding in the measurement."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the module that the network is built from by name."""
    return ("components.diffusion.sequence_denoiser",)
