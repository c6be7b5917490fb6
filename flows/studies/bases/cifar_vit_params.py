"""Parameters of the recipe `cifar_vit`: a small vision transformer that classifies 32-pixel images."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One transformer of the images of CIFAR-10."""

    channels: tuple[int, ...] = (24, 48, 96)
    """Channels of the stem's convolutions; each but the first halves the side."""
    width: int = Field(96, ge=4)
    """Channels of a token."""
    layers: int = Field(6, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden channels of the MLPs over the width."""
    steps: int = Field(1_950, ge=1)
    """Optimiser steps: five passes in batches of 128."""
    batch_size: int = Field(128, ge=2)
    """Images per step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a hundredth."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay."""
    crop_padding: int = Field(4, ge=0)
    """Pixels by which a training image is shifted at most."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the module that the recipe describes its model by."""
    return ("components.nn.conv_stem_vit",)
