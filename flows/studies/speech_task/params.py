"""Parameters and metrics of the study `speech-task`: tasks on speech whose inputs or outputs are discrete units.

Papers have experiments of their own, and extend these parameters in their package.
"""

from __future__ import annotations

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What all tasks share."""

    stream: tuple[int, int] = (3, 200)
    """Layer and number of clusters of the units."""
    dedup: bool = True
    """Whether runs of equal units are made one."""
    steps: int = Field(2_400, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""


class EvaluateParams(TrainParams):
    """What an evaluate stage is given."""


METRICS = {
    "length_ratio": Metric("share", "lower", "Tokens over base symbols of the test sequences."),
}
