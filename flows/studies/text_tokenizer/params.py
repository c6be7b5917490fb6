"""Parameters and metrics of the text-tokenizer study: dictionaries of text, what they cost and what they give."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

Source = Literal["k1", "k2", "k4", "skewed", "general"]
Tokenizer = Literal["characters", "fixed_ngram", "lzw", "bpe", "bpe_sequential", "unigram", "wordpiece"]


class TrainParams(StudyParams):
    """How dictionaries are learned from a real text, or a transformer from the tokens of a Markov source."""

    experiment: Literal["text", "unigram", "transformer", "oracle"] = "text"
    """A sweep of dictionaries over a real text, unigram losses on Markov sources, a transformer trained on one, or the
    source itself as the model."""
    tokenizer: Tokenizer = "bpe"
    """Dictionary; a real text takes bpe, unigram or wordpiece."""
    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    """Vocabulary sizes on a real text, each a dictionary of its own; the characters of the text are always in it."""
    learning_split: str = "train"
    """Split of a real text that dictionaries are learned from."""
    source: Source = "k2"
    """Markov source of a transformer: switching processes of order 1, 2, 4 with p = q = 0.8."""
    tokenizer_characters: int = Field(200_000, ge=100)
    """Characters of the source that a dictionary is learned from."""
    vocabulary_size: int = Field(20, ge=2)
    """Tokens of the transformer's dictionary."""
    window_characters: int = Field(256, ge=8)
    """Characters that a training window covers on average; the context is as many tokens as spell them."""
    batch: int = Field(16, ge=1)
    """Windows of one step."""
    steps: int = Field(800, ge=1)
    """Optimiser steps; every window is new text of the source."""
    width: int = Field(64, ge=4)
    """Channels of a token."""
    layers: int = Field(2, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(30, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(1e-3, ge=0)
    """Decoupled weight decay of matrices."""
    held_out_characters: int = Field(25_000, ge=200)
    """Characters of new text on which a training is watched."""
    startup_characters: int = Field(16, ge=4)
    """Characters at the beginning of every window that no loss on new text counts: there the context is too short."""
    early_steps: int = Field(100, ge=0)
    """Until here a training is watched often."""
    early_every: int = Field(5, ge=1)
    """Steps between two looks at first."""
    late_every: int = Field(20, ge=1)
    """Steps between two looks afterwards."""


class EvaluateParams(TrainParams):
    """How a dictionary, or a transformer over its tokens, is measured."""

    test_split: str = "test"
    """Split of a real text that is encoded; its halves take turns in fitting a unigram model and in being predicted."""
    encoder: Literal["own", "greedy", "minimal"] = "own"
    """How a text is cut: by the dictionary's own rule (bpe: merge order, lzw: greedy), longest match, fewest tokens."""
    sources: tuple[Source, ...] = ("k1", "k2")
    """Markov sources of a unigram arm; skewed is order 1 with p = q = 0.99, general a Dirichlet chain of order 2."""
    chain_sizes: tuple[int, ...] = (2, 8, 32, 128, 512, 2048)
    """Vocabulary sizes of a unigram arm; fixed n-grams take powers of two and add two characters for the end."""
    fit_characters: int = Field(2_000_000, ge=100)
    """Characters that the unigram model of tokens is fitted to."""
    test_characters: int = Field(2_000_000, ge=100)
    """Characters that it predicts."""
    final_characters: int = Field(200_000, ge=200)
    """Characters of new text that a trained transformer predicts at the end."""


METRICS = {
    "nats_per_character": Metric(
        "nats/character",
        "lower",
        "-ln P(held-out text) of a model over tokens, summed over tokens and divided by the characters they spell.",
    ),
    "bits_per_byte": Metric("bits/byte", "lower", "The same in bits, divided by the UTF-8 bytes of the text."),
    "tokens_per_character": Metric(
        "tokens/character", "lower", "Tokens of held-out text divided by its characters, the inverse of a mean length."
    ),
    "dictionary_size": Metric("tokens", "neither", "Tokens of the dictionary; fewer than asked for in a short text."),
    "renewal_nats": Metric(
        "nats/character", "lower", "Entropy of a token over mean token length: the unigram loss in the long run."
    ),
    "excess_nats": Metric("nats/character", "lower", "nats_per_character minus the entropy rate of the source."),
    "relative_excess": Metric("", "lower", "nats_per_character over the entropy rate of the source, minus one."),
    "entropy_rate": Metric(
        "nats/character", "neither", "H_inf of the source, in closed form: no model predicts better."
    ),
    "character_entropy": Metric(
        "nats/character", "neither", "H(pi) of the source, in closed form: the best model of independent characters."
    ),
    "gap": Metric(
        "",
        "lower",
        "(nats_per_character - H_inf) / (H_character - H_inf): 1 at the best unigram model of characters, 0 at the "
        "entropy rate.",
    ),
    "characters_to_half_gap": Metric(
        "characters", "lower", "Training characters until the gap is first below 1/2; the budget where it never is."
    ),
    "characters_to_quarter_gap": Metric(
        "characters", "lower", "Training characters until the gap is first below 1/4; the budget where it never is."
    ),
    "training_characters": Metric("characters", "neither", "Characters that the training windows cover in all."),
    "log_delay": Metric(
        "",
        "neither",
        "ln(characters_to_half_gap of this arm / of the tokenised twin), at least, where this arm never gets there.",
    ),
    "matched_gap": Metric(
        "", "lower", "gap of this arm after as many characters as its tokenised twin needs to get below 1/4."
    ),
    "kl_unigram": Metric("nats/token", "lower", "KL(model || token unigram) of next-token distributions, mean."),
    "kl_truth": Metric(
        "nats/token",
        "lower",
        "KL(model || true conditional) of next-token distributions, mean; the truth counted on the training text.",
    ),
    "correlation_unigram": Metric(
        "", "neither", "Pearson correlation of next-token probabilities with those of the token unigram."
    ),
    "correlation_truth": Metric(
        "", "higher", "Pearson correlation of next-token probabilities with those of the true conditional."
    ),
    "early_kl_unigram": Metric("nats/token", "lower", "Least KL(model || token unigram) during training."),
    "early_kl_unigram_step": Metric("steps", "neither", "Step of training at which it is least."),
    "formula_deviation": Metric(
        "standard errors",
        "lower",
        "|nats_per_character - block entropy / r| over the standard error of the former: its spread over the text, and "
        "the cost of estimated frequencies.",
    ),
    "worst_formula_deviation": Metric("standard errors", "lower", "The greatest formula_deviation of r = 1 .. 10."),
    "inverse_log_r2": Metric(
        "", "higher", "R^2 of the fit excess_nats = c / ln d over the dictionaries of d >= 32 tokens."
    ),
    "bound_constant": Metric(
        "",
        "lower",
        "eps ln d / ln(1/delta) with eps = 1 - H_inf / nats_per_character and delta the least transition probability: "
        "what the bound says stays bounded.",
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    if params.experiment == "oracle":
        return ()
    if params.experiment == "text":
        return (f"components.tokenizers.text.{params.tokenizer}",)
    learned = {
        "fixed_ngram": ("components.tokenizers.text.fixed_ngram",),
        "lzw": ("components.tokenizers.text.lzw",),
        "bpe": ("components.tokenizers.text.bpe_trainer",),
        "bpe_sequential": ("components.tokenizers.text.bpe_trainer",),
    }
    return learned.get(params.tokenizer, ())
