"""Parameters and metrics of siamese-attribution: explanations of a sentence encoder's similarity, and a tuned encoder.

Two experiments share one encoder. Pairs of treebank sentences are explained token by token, and the explanations are
measured. And the encoder's upper layers are tuned on human similarity, with its reference mapped to zero or not.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

FUNCTION_WORDS = ("ADP", "AUX", "CCONJ", "DET", "PART", "PRON", "SCONJ")


class TrainParams(StudyParams):
    """What a train stage makes: a sample of pairs with their attributions, or a tuned encoder."""

    task: Literal["explain", "tune"] = "explain"
    """Mine pairs of sentences and attribute their similarity, or tune the upper layers on human similarity."""
    encoder: str = "all-minilm-l6-v2"
    """Data set that holds the sentence encoder."""
    language: str = "en"
    """Table of the treebanks."""
    longest: int = Field(12, ge=3)
    """Most tokens of a sentence that is explained, those at both ends included."""
    fewest_words: int = Field(4, ge=1)
    """Fewest words of a sentence, punctuation and symbols not counted."""
    least_similarity: float = Field(0.3, ge=-1, le=1)
    """Least corrected similarity of a pair: a share of a total near zero means nothing."""
    pairs: int = Field(30, ge=2)
    """Pairs of a sample; samples of different seeds have no pair in common."""
    samples: int = Field(3, ge=1)
    """Samples that the mined pairs are divided into."""
    error_pairs: int = Field(10, ge=1)
    """Pairs of a sample on which the error is followed over the number of points, the first ones."""
    deep_pairs: int = Field(2, ge=0)
    """Pairs on which it is also followed at the deeper layers, the first ones."""
    layer: int = Field(5, ge=0)
    """Layer whose input similarity is attributed to, counted from 0."""
    deep_layers: tuple[int, ...] = (3,)
    """Further layers at which the error is followed."""
    points: tuple[int, ...] = (5, 10, 25, 50)
    """Points of the integral at the right ends of intervals, as in the public code."""
    midpoints: tuple[int, ...] = (5, 10, 25)
    """Points of the integral in the middle of intervals."""
    share_points: int = Field(10, ge=1)
    """Points, in the middle of intervals, of the matrices that shares and groups are read from; one of `midpoints`."""
    test_pairs: int = Field(581, ge=1)
    """Scored pairs held out from tuning; none shares a sentence with the others."""
    train_pairs: int = Field(0, ge=0)
    """Scored pairs to tune on, the first ones; 0 for all that are not held out."""
    longest_scored: int = Field(128, ge=3)
    """Most tokens of a scored sentence."""
    tuned_from: int = Field(4, ge=0)
    """First layer that is tuned, counted from 0; what lies below is frozen."""
    shifted: bool = False
    """Whether the embedding of a reference of the same length is subtracted."""
    steps: int = Field(280, ge=1)
    """Updates."""
    batch: int = Field(16, ge=1)
    """Pairs of an update."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the updates over which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.share_points not in self.midpoints:
            raise ValueError(f"share_points is {self.share_points}; expected one of midpoints {list(self.midpoints)}.")
        if not self.deep_pairs <= self.error_pairs <= self.pairs:
            raise ValueError(
                f"deep_pairs {self.deep_pairs}, error_pairs {self.error_pairs} and pairs {self.pairs} must not fall."
            )
        return self


class EvaluateParams(TrainParams):
    """What an arm measures."""

    measure: Literal[
        "integrated_jacobians",
        "gradient_x_input",
        "last_layer_dot",
        "one_side",
        "random_encoder",
        "uniform",
        "words",
        "similarity",
        "word_overlap",
        "tuned_explanation",
    ] = "integrated_jacobians"
    """A way to explain pairs, a group of their words, similarity against human scores, or a tuned encoder's pairs."""
    words: tuple[str, ...] = ()
    """Tags of the group of words."""
    share: float = Field(0.8, gt=0, le=1)
    """Share of a similarity that the largest pairs of tokens are to reach."""
    permutations: int = Field(2_000, ge=1)
    """Random orders of the tags of each sentence."""
    resamples: int = Field(2_000, ge=2)
    """Bootstrap resamples of the pairs of all samples."""
    explained_pairs: int = Field(4, ge=1)
    """Pairs that a tuned encoder explains."""


METRICS = {
    "completeness_error": Metric(
        "",
        "lower",
        "Median over pairs of |sum of attributions - corrected similarity|, both as a cosine, 0 to 2.",
    ),
    "pair_error": Metric("", "lower", "The same of each pair."),
    "corrected_similarity": Metric(
        "", "neither", "Similarity of a pair less the reference terms, as a cosine: what attributions sum to."
    ),
    "pairs_needed": Metric(
        "share", "lower", "Median over sentence pairs of the share of token pairs that reach `share` of the total."
    ),
    "pair_needs": Metric("share", "lower", "The same of each sentence pair."),
    "tokens_touched": Metric("share", "lower", "Share of all tokens that take part in those token pairs."),
    "negative_mass": Metric("share", "neither", "Share of the absolute attributions that is negative."),
    "edge_mass": Metric(
        "share", "neither", "Share of the absolute attributions in the rows or columns of the tokens at both ends."
    ),
    "pair_information": Metric(
        "share", "higher", "Share of the variance over token pairs that one number per token of each text leaves."
    ),
    "agreement": Metric("", "higher", "Spearman correlation over token pairs with the integrated Jacobians' matrix."),
    "needs_below_random": Metric(
        "share", "lower", "Median of pair_needs over the pairs of all samples less that of the random encoder."
    ),
    "needs_below_random_high": Metric(
        "share", "lower", "Upper end of its 95% bootstrap interval, pairs of all samples resampled together."
    ),
    "group_ratio": Metric(
        "×", "higher", "Mean absolute attribution of word pairs of the group over that of all word pairs."
    ),
    "pairs_with_group": Metric(
        "pairs", "higher", "Sentence pairs, of all samples together, with a word of the group on both sides."
    ),
    "permutation_p": Metric(
        "probability",
        "lower",
        "Chance of so large a ratio with the tags of each sentence in random order, all samples.",
    ),
    "spearman": Metric(
        "points", "higher", "100 times the rank correlation of cosines with human scores; rows are its jackknife."
    ),
    "human_error": Metric("", "lower", "Mean squared distance of cosines from human scores over 5."),
    "reference_term": Metric(
        "", "lower", "Mean over scored sentences of |e(r)^T e(x)| / |e(x)|^2, r the reference of x: 0 where e(r) is."
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name; none is, so every arm depends on what its stages import."""
    return ()
