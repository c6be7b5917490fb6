"""Parameters and metrics of the study `token-reduction`: trained networks read fewer tokens than they were trained on.

Nothing is trained here. Papers with an experiment of their own extend these parameters in their package.
"""

from __future__ import annotations

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What a train stage of the study is given; every method of it works without training."""

    dataset: str = "shapes-48"
    """Data set of pictures and questions."""
    base: str = "vlm-base"
    """Base that is used: this name for seed 0, and with `-s<seed>` behind it for the others."""


class EvaluateParams(TrainParams):
    """What an evaluate stage of the study is given."""

    test_scenes: int = Field(1_000, ge=2)
    """Scenes of the test split; fewer where there are not as many."""
    sample_scenes: int = Field(4, ge=1)
    """Pictures kept for figures."""


METRICS = {
    "accuracy": Metric(
        "percent",
        "higher",
        "Share of test items answered rightly: images classified, captions found, or questions; `task` or `questions` "
        "(general: all but read) says which, `tokens` or `ratio` how far tokens were reduced.",
    ),
    "accuracy_by_type": Metric("percent", "higher", "Share of the questions of one type answered rightly."),
    "above_blind": Metric(
        "points", "higher", "Accuracy on questions minus that of the same model with zeros for visual tokens."
    ),
    "gflops": Metric(
        "GFLOP", "lower", "Forward cost of the network for one item, with what the reduction itself computes."
    ),
    "language_gflops": Metric(
        "GFLOP",
        "lower",
        "Forward cost of the language model's blocks for one question, its visual tokens and the rule included.",
    ),
}


METHODS = ("pitome", "pitome_bsm", "attention_energy", "tome", "tofu", "random_pairs")
"""Methods that merge tokens: modules of components.compression.merging."""


def method_module(method: str) -> str:
    """Return the module of a method that merges tokens."""
    return f"components.compression.merging.{method}"


def base_name(base: str, seed: int) -> str:
    """Return the base of a seed: `base` for seed 0, `base-s<seed>` for the others."""
    return f"{base}-s{seed}" if seed else base


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    return ("components.multimodal.vlm", "components.multimodal.contrastive", "components.language.causal_lm")
