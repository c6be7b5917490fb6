"""Parameters and metrics of the decoding study: what a model of tokens says about text, and what asking it costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """How a token model is trained."""

    source: Literal["chain", "text"] = "chain"
    """Texts drawn from the Markov chain of the seed, or windows of a real text."""
    tokenizer: Literal["max_prefix", "bpe"] = "max_prefix"
    """Module of components.tokenizers.text."""
    vocabulary: tuple[str, ...] = ("A", "B", "AA", "BA", "BBA", "BAA", "BAAB", "BBAA", "BBBA")
    """Tokens of maximum prefix encoding."""
    vocabulary_size: int = Field(9, ge=2)
    """Tokens of BPE, single symbols included."""
    tokenizer_characters: int = Field(200_000, ge=100)
    """Characters of the chain that BPE learns its merges from."""
    characters: int = Field(6_400_000, ge=100)
    """Characters of the chain that the model is trained on at a data share of 1, drawn once, read 1 to 2 times."""
    context: int = Field(64, ge=2)
    """Tokens of a training window, and positions of the model."""
    width: int = Field(64, ge=4)
    """Channels of a token."""
    layers: int = Field(2, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    tied: bool = False
    """Whether the output layer is the input embedding."""
    batch: int = Field(32, ge=1)
    """Windows of one step."""
    steps: int = Field(2400, ge=1)
    """Optimiser steps at a data share of 1."""
    data_share: float = Field(1.0, gt=0, le=1)
    """Share of the characters and of the steps that this arm is given, so that every size is read equally often."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""


class EvaluateParams(TrainParams):
    """How a token model is asked for characters."""

    model: Literal["trained", "exact"] = "trained"
    """The trained network, or the token distribution of the chain by enumeration."""
    query: Literal["max_prefix_correction", "cover", "direct"] = "max_prefix_correction"
    """How next-character probabilities are read off the token model."""
    truncate: bool = True
    """Whether mass on invalid token sequences is removed first."""
    enumerated_length: int = Field(14, ge=4, le=20)
    """Characters of the texts that the exact model enumerates."""
    contexts_per_state: int = Field(200, ge=2)
    """Random contexts that end in each state of the chain."""
    shortest: int = Field(12, ge=1)
    """Fewest characters of a context."""
    longest: int = Field(40, ge=1)
    """Most characters of a context."""
    call_strings: int = Field(200, ge=3)
    """Strings of each kind (uniformly random, and of the chain) whose model calls are counted."""
    longest_call: int = Field(64, ge=2)
    """Most characters of such a string."""
    text_cuts: int = Field(200, ge=2)
    """Contexts of a real text that end inside a token, and as many that end with one."""
    text_chunks: int = Field(100, ge=2)
    """Held-out pieces of a real text that are scored in bits per character."""
    chunk_characters: int = Field(100, ge=2)
    """Most characters of such a piece."""

    @model_validator(mode="after")
    def _fits(self) -> EvaluateParams:
        if self.shortest > self.longest:
            raise ValueError(f"shortest is {self.shortest} and longest {self.longest}; expected shortest <= longest.")
        if self.query == "max_prefix_correction" and self.tokenizer != "max_prefix":
            raise ValueError("query max_prefix_correction needs tokenizer: max_prefix; for BPE use query: cover.")
        return self


METRICS = {
    "mae": Metric(
        "probability",
        "lower",
        "Mean over states (and characters) of |average estimate of P(next | state) over the state's contexts - truth|.",
    ),
    "blind_mae": Metric(
        "probability", "lower", "The same error of a model that always predicts the character's overall frequency."
    ),
    "context_error": Metric(
        "probability", "lower", "|estimate - truth| of P(next | state) in one context, mean over characters."
    ),
    "estimate": Metric("probability", "neither", "Average estimate of P(first character | state) over its contexts."),
    "truth": Metric("probability", "neither", "P(first character | state) of the chain."),
    "mass_error": Metric(
        "probability", "lower", "Largest |sum of the next-character probabilities - 1| over all contexts."
    ),
    "invalid_mass": Metric(
        "probability",
        "lower",
        "Mean next-token probability that the model puts on continuations no endless text has.",
    ),
    "calls_excess": Metric(
        "calls", "lower", "Largest (model calls of one query) - (tokens of the queried string) - 1 over all strings."
    ),
    "calls_slope": Metric("calls/character", "lower", "Slope of model calls on the length of the queried string."),
    "calls_r2": Metric("", "higher", "R^2 of the straight line through the model calls of single strings by length."),
    "mean_calls_r2": Metric("", "higher", "R^2 of the straight line through the mean model calls at each length."),
    "bits_per_character": Metric(
        "bits/character", "lower", "-log2 P(text) of held-out text from the token model, by summing over covers."
    ),
    "token_bits_per_character": Metric(
        "bits/character", "lower", "-log2 P(encode(text)) of the same text: its one encoding instead of all covers."
    ),
    "source_bits_per_character": Metric(
        "bits/character", "neither", "-log2 P(text) of the same text from the chain itself: no model predicts better."
    ),
    "kl": Metric(
        "bits",
        "lower",
        "KL divergence of the direct from the corrected next-character distribution, KL(corrected || direct), by where "
        "the context is cut: inside a token of the full text's encoding, or at the end of one.",
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    modules = [f"components.tokenizers.text.{params.tokenizer}"]
    if kind == "evaluate":
        exact = isinstance(params, EvaluateParams) and params.model == "exact"
        modules.append("components.language.exact_token_model" if exact else "components.language.causal_lm")
    return tuple(modules)
