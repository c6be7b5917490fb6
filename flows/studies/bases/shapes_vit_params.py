"""Parameters of the recipe `shapes_vit`: an image encoder of scenes and the text tower it agrees with."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One encoder of the scenes of one data set."""

    patch_size: int = Field(4, ge=1)
    """Side of a patch, pixels."""
    width: int = Field(96, ge=4)
    """Channels of both towers."""
    layers: int = Field(6, ge=2)
    """Blocks of the image encoder."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    mlp_ratio: float = Field(3.0, gt=0)
    """Hidden channels of the image encoder's MLPs over its width."""
    text_layers: int = Field(2, ge=1)
    """Blocks of the text tower."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the cosines at the start; it is learned."""
    patch_weight: float = Field(1.0, ge=0)
    """Weight of the cross-entropy of what each patch shows."""
    train_scenes: int = Field(40_000, ge=2)
    """Scenes to learn from, the first of the training split; fewer where there are not as many."""
    test_scenes: int = Field(1_000, ge=2)
    """Scenes to measure on, the first of the test split; fewer where there are not as many."""
    steps: int = Field(2_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(64, ge=2)
    """Scenes per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a hundredth."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.multimodal.contrastive",)
