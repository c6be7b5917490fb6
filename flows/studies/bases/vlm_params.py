"""Parameters of the recipe `vlm`: a projector and a language model that answer questions about scenes."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One vision-language model on top of an encoder and a language model that are bases themselves."""

    merge: int = Field(1, ge=1)
    """Side of the square of patches whose features are joined to one visual token."""
    align_scenes: int = Field(8_000, ge=1)
    """Scenes of stage 1 (captions; the language model is frozen), the first of the training split."""
    train_scenes: int = Field(30_000, ge=1)
    """Scenes of stage 2 (questions), the first of the training split."""
    test_scenes: int = Field(1_000, ge=1)
    """Scenes to measure on, the first of each split; fewer where there are not as many."""
    align_steps: int = Field(250, ge=1)
    """Optimiser steps of stage 1."""
    steps: int = Field(4_000, ge=1)
    """Optimiser steps of stage 2."""
    batch_size: int = Field(32, ge=1)
    """Scenes per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW in both stages, cosine decay to a tenth."""
    align_warmup_steps: int = Field(25, ge=0)
    """Steps of linear warm-up of stage 1."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up of stage 2."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    grounding_weight: float = Field(1.0, ge=0)
    """Weight of the grounding heads' loss in both stages."""
    patience: int = Field(2_000, ge=1)
    """Step of stage 2 at which a model that answers no better than without its picture is given up."""
    attempts: int = Field(3, ge=1)
    """Initialisations that are tried at most."""
    patience_scenes: int = Field(200, ge=1)
    """Validation scenes on which that is decided."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes and loads its models by."""
    return ("components.multimodal.vlm", "components.multimodal.contrastive", "components.language.causal_lm")
