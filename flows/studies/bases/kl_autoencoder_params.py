"""Parameters of the recipe `kl_autoencoder`: a variational autoencoder of images with continuous latents."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One autoencoder of the images of one data set."""

    image_side: int = Field(32, ge=4)
    """Height and width of the images, pixels."""
    channels: tuple[int, ...] = Field((32, 64, 96), min_length=1)
    """Channels of every level, finest first; each level halves the resolution."""
    latent_dim: int = Field(16, ge=1)
    """Channels of a latent vector."""
    kl_weight: float = Field(1e-4, ge=0)
    """Weight of a cell's KL divergence in nats against the mean squared pixel error on the scale -1 to 1."""
    perceptual_weight: float = Field(0.1, ge=0)
    """Weight of the squared distance of penultimate features, per feature."""
    perceptual_base: str = "cifar-clf-a"
    """Base whose features that distance is measured in."""
    train_images: int = Field(50_000, ge=1)
    """Images to learn from, the first of the training split; fewer where there are not as many."""
    test_images: int = Field(2_000, ge=2)
    """Images to measure on, the first of the test split; fewer where there are not as many."""
    steps: int = Field(5_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    weight_ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of the weights."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.nn.kl_autoencoder", "components.nn.image_classifiers")
