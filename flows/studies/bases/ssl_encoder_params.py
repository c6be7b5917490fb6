"""Parameters of the recipe `ssl_encoder`: a speech encoder that learns without labels, in two iterations."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One encoder; the first one, which gives the second its targets, is not kept."""

    width: int = Field(128, ge=8)
    """Channels of the transformer."""
    layers: int = Field(4, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    feed_forward: int = Field(512, ge=8)
    """Hidden channels of the MLPs."""
    position_kernel: int = Field(31, ge=1)
    """Frames that the convolution for positions sees, odd."""
    codes: int = Field(100, ge=2)
    """Clusters of the targets, in both iterations and in what is measured."""
    target_layer: int = Field(3, ge=1)
    """Layer of the first encoder that the second iteration's targets are clusters of, and that is measured."""
    first_steps: int = Field(1_500, ge=1)
    """Optimiser steps with cepstra's clusters as targets."""
    second_steps: int = Field(2_500, ge=1)
    """Optimiser steps with the first encoder's clusters as targets."""
    batch_size: int = Field(16, ge=1)
    """Stretches of speech per step."""
    seconds: float = Field(2.0, gt=0)
    """Length of a stretch."""
    mask_start: float = Field(0.08, gt=0, le=1)
    """Probability that a hidden span starts at a frame."""
    mask_span: int = Field(10, ge=1)
    """Frames of a span."""
    masked_weight: float = Field(0.5, gt=0, le=1)
    """Weight alpha of the loss of hidden frames; the rest is that of the frames that the encoder sees."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(150, ge=0)
    """Steps of linear warm-up, in both iterations."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    denoise: bool = False
    """Inputs are mixed with noise or a second speaker, targets are those of the clean speech."""
    train_utterances: int = Field(100_000, ge=2)
    """Most training utterances of each data set."""
    cluster_utterances: int = Field(3_000, ge=1)
    """Training utterances whose frames the clusters are made of."""
    test_utterances: int = Field(400, ge=1)
    """Most utterances with known phonemes that clusters are measured on."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.speech.ssl_encoder",)
