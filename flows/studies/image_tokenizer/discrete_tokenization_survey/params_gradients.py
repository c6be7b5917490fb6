"""Parameters and metrics of the survey's study of gradient estimators, on problems where the truth is enumerated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class GradientEvaluateParams(StudyParams):
    """Which estimator is asked for the gradient of which problems; nothing is trained."""

    estimator: Literal["ste", "gumbel", "gumbel_st", "rotation_trick", "reinforce"] = "ste"
    """How a gradient passes the draw of a code."""
    temperatures: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
    """Temperatures of the Gumbel softmax; the other estimators have none and are measured once."""
    toy_codes: int = Field(4, ge=2)
    """Codes that the expectation is enumerated over."""
    toy_dim: int = Field(4, ge=1)
    """Width of a vector and of a code."""
    problems: int = Field(32, ge=2)
    """Problems of a seed: codes, vector, network and target drawn anew for each."""
    draws: int = Field(200_000, ge=4)
    """Estimates of each problem's gradient, in two halves."""
    assignment_temperature: float = Field(2.0, gt=0)
    """Temperature of the draw of a code, in squared distance."""


GRADIENT_METRICS = {
    "bias": Metric(
        "",
        "lower",
        "Component of the estimates' mean error along the direction in which the other half of the draws errs, per "
        "mean norm of the true gradient: its mean is the length of the bias, up to noise, and 0 without bias.",
    ),
    "bias_low_99": Metric("", "neither", "Lower end of the 99% interval of the bias over the draws of all problems."),
    "bias_high_99": Metric("", "neither", "Upper end of that interval."),
    "variance": Metric(
        "",
        "lower",
        "Expected squared distance of an estimate from the mean estimate, per squared mean norm of the truth.",
    ),
    "cosine": Metric("", "higher", "Cosine between the true gradient and the mean of all estimates."),
    "draw_cosine": Metric("", "higher", "Cosine between the true gradient and one estimate, mean over draws."),
    "truth_norm": Metric("", "neither", "Mean norm of the true gradient, before everything is divided by it."),
}


def gradient_modules() -> tuple[str, ...]:
    """Return the modules of components that the study of gradients measures."""
    return ("components.analysis.gradient_bias", "components.quantizers.rotation_trick")
