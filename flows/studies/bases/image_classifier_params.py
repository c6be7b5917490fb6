"""Parameters of the recipe `image_classifier`: a small classifier whose features serve losses and metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One classifier of the 32-pixel images of CIFAR-10."""

    design: Literal["residual", "plain"] = "residual"
    """Residual blocks, or a plain stack of convolutions with pooling."""
    channels: tuple[int, ...] | tuple[tuple[int, ...], ...] = (16, 32, 64)
    """Channels of each residual stage, or of the convolutions of each plain group; the last is the feature width."""
    epochs: float = Field(3.0, gt=0)
    """Passes over the training images."""
    batch_size: int = Field(128, ge=2)
    """Images per step."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.02, ge=0)
    """Decoupled weight decay."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return no further modules: the recipe imports the classifiers itself."""
    return ()
