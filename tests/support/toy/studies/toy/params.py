"""Parameters and metrics of the toy study: numbers are drawn, and their centre is estimated by a rule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """How the numbers are drawn."""

    steps: int = Field(20, ge=1)
    """Numbers drawn."""
    spread: float = Field(1.0, gt=0)
    """Standard deviation of the numbers."""
    pause: float = Field(0.0, ge=0)
    """Seconds to sleep, for tests that need a slow stage."""


class EvaluateParams(TrainParams):
    """How their centre is estimated."""

    rule: Literal["mean", "median"] = "mean"
    """Estimator of the centre."""
    grid: tuple[int, ...] = (1, 2, 4)
    """Shares of the numbers used: all, a half, a quarter."""


METRICS = {
    "error": Metric("", "lower", "distance of the estimate from the true centre, zero"),
    "count": Metric("", "neither", "numbers the estimate is made from"),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the module of the chosen rule."""
    return (f"flows.studies.toy.rules.{params.rule}",) if kind == "evaluate" else ()
