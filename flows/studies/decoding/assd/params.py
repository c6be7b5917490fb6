"""Parameters and metrics of any-subset speculative decoding: how a network is trained, and how it fills gaps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """How a two-stream network is trained."""

    text: Literal["characters", "code", "chain"] = "characters"
    """Windows of one text from anywhere, windows of source code from the start of a line, or a Markov chain."""
    judge: str = "judge-char-lm"
    """Base that reads what is filled in, from left to right; its tokens are the network's, too."""
    order: Literal["lattice", "permutation"] = "lattice"
    """Order of the masked tokens in training: from left to right, or any."""
    objective: Literal["joint", "parallel"] = "joint"
    """Whether a masked token sees those before it in the order, or none."""
    context: int = Field(64, ge=2)
    """Tokens of a window, and positions of the network."""
    width: int = Field(96, ge=4)
    """Channels of a token."""
    layers: int = Field(3, ge=1)
    """Transformer blocks, each passed by both streams."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    batch: int = Field(16, ge=1)
    """Windows of one step."""
    steps: int = Field(2000, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up of the learning rate."""
    mask_start: float = Field(0.15, ge=0, le=1)
    """Share of masked tokens in the first step."""
    mask_low: float = Field(0.85, ge=0, le=1)
    """Least share of masked tokens after the warm-up of the rate."""
    mask_high: float = Field(0.99, ge=0, le=1)
    """Largest share of masked tokens after the warm-up of the rate."""
    mask_warmup_steps: int = Field(300, ge=0)
    """Steps in which the range of rates moves from the first rate to its own."""
    chain_alphabet: int = Field(4, ge=2, le=26)
    """Letters of the Markov chain."""
    chain_order: int = Field(2, ge=1)
    """Letters that decide the next one."""
    chain_concentration: float = Field(0.3, gt=0)
    """Of the Dirichlet law of each row of the chain: the smaller, the surer is what follows."""
    vocabulary_size: int = Field(65, ge=2)
    """Tokens of the network where nothing is read: it is only built, to count its parameters."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.mask_low > self.mask_high:
            raise ValueError(f"mask_low is {self.mask_low} and mask_high {self.mask_high}; expected low <= high.")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the {self.heads} heads (rotary positions).")
        return self


class EvaluateParams(TrainParams):
    """What is asked of a trained network."""

    measure: Literal["density", "filling", "exactness"] = "density"
    """Joint density of held-out text; filling of gaps; or the law of fillings against an enumeration."""
    filler: Literal["speculative", "parallel", "ancestral"] = "speculative"
    """Drafts that are verified, drafts that are not, or masked diffusion."""
    drafter: Literal["self", "context"] = "self"
    """Who drafts: the network, or counts of neighbours in the text itself."""
    ks: tuple[int, ...] = Field((5,), min_length=1)
    """Tokens drafted at once, or of a step."""
    sequences: int = Field(1024, ge=2)
    """Held-out windows of a seed that are filled."""
    masked_share: float = Field(0.95, gt=0, lt=1)
    """Share of tokens that are filled in."""
    temperature: float = Field(1.0, gt=0)
    """Of every law that is drawn from."""
    density_windows: int = Field(256, ge=2)
    """Held-out windows whose density is measured, the same for all seeds and arms."""
    density_shares: tuple[float, ...] = Field((0.5, 0.95), min_length=1)
    """Shares of masked tokens at which it is measured."""
    samples: int = Field(40_000, ge=100)
    """Fillings of one text that are compared with an enumeration."""
    speculative_k: int = Field(5, ge=2)
    """Tokens drafted at once in that comparison."""

    @model_validator(mode="after")
    def _positive(self) -> EvaluateParams:
        if min(self.ks) < 1:
            raise ValueError(f"ks is {list(self.ks)}; expected 1 or more each.")
        return self


METRICS = {
    "joint_nll": Metric(
        "nats/token",
        "lower",
        "-ln p(masked | visible) over the masked tokens of held-out windows, by the share masked (mask) and the order "
        "of reading; beside it counts of the training text, whose pairs see the true token to the left.",
    ),
    "calls_per_token": Metric(
        "calls/token", "lower", "Network evaluations of a filled text over its filled tokens, by tokens drafted (k)."
    ),
    "bound_violations": Metric("texts", "lower", "Texts that took more network evaluations than they had gaps."),
    "acceptance": Metric(
        "share",
        "higher",
        "Share of the judged drafts that were accepted, by place in the draft; what stands behind a refused one is not "
        "judged.",
    ),
    "judge_nll": Metric(
        "nats/token",
        "lower",
        "-ln P of a filled text by a causal model that had no part in filling it, over its tokens.",
    ),
    "original_nll": Metric("nats/token", "neither", "The same of the texts whose gaps are filled, as they were."),
    "token_entropy": Metric(
        "nats", "neither", "Entropy of the frequencies of the filled tokens of one text: low where it repeats itself."
    ),
    "rouge": Metric(
        "share", "higher", "ROUGE-L of the filled against the original tokens: F1 of their longest common subsequence."
    ),
    "drift": Metric(
        "nats/token",
        "lower",
        "judge_nll of parallel filling minus that of speculative filling of the same gaps with the same k.",
    ),
    "dependence": Metric(
        "probability",
        "neither",
        "Total variation between the enumerated joint law and the product of its marginals.",
    ),
    "total_variation": Metric(
        "probability", "lower", "Total variation between the histogram of the fillings and the enumerated joint law."
    ),
    "fit_p": Metric(
        "probability",
        "neither",
        "p-value of Pearson's test of the fillings against the enumerated law, cells expected below 5 pooled.",
    ),
    "fit_rejected": Metric("", "lower", "1 where that p-value is at most 0.01, otherwise 0."),
    "enumerated_mass": Metric(
        "probability", "neither", "Sum of the enumerated probabilities of all completions, each from one oracle pass."
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    if kind == "train" or not isinstance(params, EvaluateParams) or params.measure != "filling":
        return ()
    if params.filler == "ancestral":
        return ("components.diffusion.samplers",)
    return ("components.language.context_ngram",) if params.drafter == "context" else ()
