"""Parameters of the recipe `grid_tokenizer`: a convolutional VQ tokenizer of images."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One tokenizer of the images of one data set."""

    image_side: int = Field(32, ge=4)
    """Height and width of the images, pixels."""
    channels: tuple[int, ...] = Field((32, 64), min_length=1)
    """Channels of every level, finest first; each level halves the resolution."""
    codebook_size: int = Field(512, ge=2)
    """Number of codes."""
    code_dim: int = Field(16, ge=1)
    """Width of a code."""
    code_ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of the codes."""
    restart_every: int = Field(20, ge=0)
    """Steps after which codes that nothing chose are restarted."""
    start_images: int = Field(512, ge=1)
    """Images whose vectors the codebook starts from."""
    quantizer_weight: float = Field(0.0625, ge=0)
    """Weight of the quantizer's loss, a sum over the 16 dimensions of a code; 1/16 makes it their mean."""
    train_images: int = Field(50_000, ge=1)
    """Images to learn from, the first of the training split; fewer where there are not as many."""
    test_images: int = Field(2_000, ge=2)
    """Images to measure on, the first of the test split; fewer where there are not as many."""
    steps: int = Field(2_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.tokenizers.image.grid", "components.quantizers.euclidean_vq")
