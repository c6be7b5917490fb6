"""Parameters and metrics of the study that the chaos suite disturbs: a small network learns a table of numbers."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What is trained."""

    steps: int = Field(40, ge=1)
    """Optimiser steps."""
    width: int = Field(16, ge=1)
    """Hidden units."""


class EvaluateParams(TrainParams):
    """The evaluation has no parameters of its own."""


METRICS = {"error": Metric("", "lower", "root mean squared error of the learned probabilities")}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return no modules: nothing is chosen by name."""
    return ()
