"""Parameters and metrics of PiToMe: merging inside trained encoders, and on token sets whose clusters are known."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.studies.token_reduction import params as study
from flows.studies.token_reduction.params import METHODS, TrainParams, method_module

__all__ = ["METRICS", "EvaluateParams", "TrainParams", "components"]


class EvaluateParams(study.EvaluateParams):
    """What an evaluate stage is given."""

    task: Literal["pictures", "clusters", "questions"] = "pictures"
    """Images are classified and captions found; planted clusters are merged; or questions about scenes are answered."""
    method: Literal["none", "pitome", "pitome_bsm", "attention_energy", "tome", "tofu", "random_pairs"] = "pitome"
    """Module of components.compression.merging, or no reduction."""
    energy: Literal["code", "paper", "kernel"] = "code"
    """Which energy orders the tokens."""
    margin: float = Field(0.9, ge=0, lt=1)
    """Margin of the energy in the first block."""
    fall: float | None = Field(None, ge=0, lt=1)
    """By how much the margin falls until behind the last block; to zero where it is not given."""
    split: Literal["alternate", "halves", "random"] = "alternate"
    """How the mergeable tokens are divided into two sides."""
    dropping: Literal["early", "late"] = "early"
    """Half of the blocks in which ToFu drops tokens."""
    ratios: tuple[float, ...] = (0.95, 0.9, 0.8)
    """Share of its tokens that every block keeps."""
    extra_ratios: tuple[float, ...] = ()
    """Further shares, which no claim looks at."""
    classifier: str = "cifar-vit"
    """Base that classifies images, of seed 0; `-s<seed>` stands behind it for the others."""
    retriever: str = "shapes-vit"
    """Base that finds captions, of seed 0."""
    test_images: int = Field(5_000, ge=2)
    """Images of CIFAR-10's test split; fewer where there are not as many."""
    gallery_scenes: int = Field(1_000, ge=2)
    """Captions among which a scene looks for its own."""
    observed_images: int = Field(32, ge=1)
    """Images whose features and token graphs are compared with those of the whole network."""
    timing_runs: int = Field(0, ge=0)
    """Runs of each timing, the first quarter of which is thrown away; none where 0."""
    cluster_tokens: tuple[int, ...] = (64, 144, 256)
    """Tokens of a set with planted clusters."""
    cluster_ratios: tuple[float, ...] = (0.9, 0.8, 0.7)
    """Share of those tokens that one merge keeps."""
    cluster_share: int = Field(8, ge=2)
    """Tokens for each cluster, on average."""
    cluster_width: int = Field(128, ge=2)
    """Channels of those tokens."""
    cluster_margin: float = Field(0.75, gt=0, lt=1)
    """Least cosine inside a cluster; the margin of the energy, too."""
    noises: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """Spread of tokens around their centre."""
    draws: int = Field(200, ge=2)
    """Token sets of each size and noise that are merged once."""
    step_draws: int = Field(20, ge=2)
    """Token sets that are merged in several steps, down to the number of clusters."""


METRICS = {
    "mean_accuracy": Metric("percent", "higher", "Accuracy averaged over the keep ratios of the claims."),
    "drop": Metric("points", "lower", "Accuracy of the whole network minus that of the reduced one."),
    "bootstrap_wins": Metric(
        "seeds",
        "higher",
        "Seeds whose mean accuracy exceeds that of ToMe by a margin whose paired 95% bootstrap interval over images "
        "(2,000 resamples) lies above zero.",
    ),
    "tokens": Metric("tokens", "lower", "Patch tokens that are left behind the block `layer`, or behind the last."),
    "feature_drift": Metric(
        "",
        "lower",
        "1 - cosine of the mean over patch tokens, weighted by size, and the same mean of the whole network.",
    ),
    "spectral_distance": Metric(
        "",
        "lower",
        "Sum of absolute differences of the eigenvalues of a token graph and of the graph merged once, planted "
        "clusters, averaged over numbers of tokens and, where `noise` is not given, over noises.",
    ),
    "spectral_distance_by_size": Metric("", "lower", "The spectral distance at one number of tokens and one noise."),
    "spectral_distance_of_steps": Metric(
        "", "lower", "The spectral distance after merging in steps of 0.9, down to the number of planted clusters."
    ),
    "spectral_distance_of_images": Metric(
        "", "lower", "The spectral distance of what one block of an encoder merges, over images, per token."
    ),
}


def components(params: EvaluateParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    if kind == "train":
        return ()
    networks = {
        "pictures": ("components.nn.conv_stem_vit", "components.multimodal.contrastive"),
        "clusters": (),
        "questions": study.components(params, kind),
    }[params.task]
    return (*networks, *((method_module(params.method),) if params.method in METHODS else ()))
