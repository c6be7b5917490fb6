"""Parameters and metrics of number-token-loss: arithmetic questions, and regression on tables of numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.studies.language_model import params as study


class TrainParams(study.TrainParams):
    """How an arm is trained."""

    task: Literal["questions", "table"] = "questions"
    """Arithmetic questions in words, or a number to be predicted from the numbers of a row."""
    answer_tokens: int = Field(6, ge=1)
    """Most tokens of an answer with its end; questions are moved to the right end of the context before them."""
    network: Literal["causal_answering", "t5_answering", "xval", "regression_head"] = "causal_answering"
    """Module of components.language."""
    initial: str = ""
    """Base whose weights and tokenizer are taken over; an untrained network where it is empty."""
    tokenizer: Literal["numeric", "regression_transformer", "xval", "digit_splitting"] = "numeric"
    """Module of components.tokenizers.text."""
    number_loss: Literal["none", "wasserstein", "squared"] = "none"
    """Form of the number token loss."""
    number_weight: float = Field(0.3, ge=0)
    """Its weight beside the cross entropy."""
    shuffled_values: bool = False
    """Whether its digits are given each other's values: a control without geometry."""
    smoothing: float = Field(0.0, ge=0)
    """Width of the Gaussian over which the labels of digits are spread, in digits; 0 for plain labels."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.answer_tokens + 2 > self.context:
            raise ValueError(f"answer_tokens is {self.answer_tokens}; expected at most the context less 2.")
        if (self.network == "xval") != (self.tokenizer == "xval"):
            raise ValueError("network xval and tokenizer xval go together; a number is then no digits.")
        if self.number_loss != "none" and self.tokenizer == "xval":
            raise ValueError("xval has no number tokens that a number_loss could be taken of.")
        if self.network == "regression_head" and self.task != "table":
            raise ValueError("network regression_head writes a number and no text: expected task: table.")
        return self


class EvaluateParams(TrainParams):
    """How an arm is evaluated."""

    predictor: Literal["trained", "constant", "ridge"] = "trained"
    """The trained network, the training median (questions) or mean (table), or linear regression on the row."""
    examples: int = Field(400, ge=1)
    """Interpolation questions of a category whose digit distributions are kept for the figure."""
    test_share: float = Field(1.0, gt=0, le=1)
    """Share of the test questions and rows that is asked, the first ones of each category."""


METRICS = {
    "nerr": Metric("", "lower", "min(|error| / blind MAE of the category and split, 2), 2 where it is no number."),
    "accuracy": Metric("share", "higher", "Share of exact answers over all categories of a split."),
    "mae": Metric("", "lower", "Mean absolute error over answers that are numbers; the others' share is masked."),
    "median_error": Metric("", "lower", "Median absolute error, an answer that is no number counting as infinite."),
    "r2": Metric("", "higher", "1 - squared error / variance over answers that are numbers."),
    "unparsable_share": Metric("share", "lower", "Share of answers that are no number."),
    "blind_mae": Metric("", "neither", "Mean absolute error of the category's training median."),
    "digit_error": Metric(
        "digits", "lower", "|E q - y| of answer digits, q the probabilities of digits given the right digits before."
    ),
    "digit_spread": Metric(
        "digits", "lower", "W1(q, y) - |E q - y|: distance that probability on both sides of the label hides from E q."
    ),
    "judged_nerr": Metric("", "lower", "nerr over the interpolation questions of the categories inside the gate."),
    "judged_exact": Metric("share", "higher", "Exact match over the same questions."),
    "judged_categories": Metric("categories", "higher", "Number of categories inside the gate."),
    "rmse": Metric("", "lower", "Root mean squared error of the expected value sum_place 10^place E_q[digit]."),
    "greedy_rmse": Metric("", "lower", "Root mean squared error of the likeliest digits."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    if getattr(params, "predictor", "trained") != "trained":
        return ()
    modules = [f"components.language.{params.network}", f"components.tokenizers.text.{params.tokenizer}"]
    if params.tokenizer == "regression_transformer":
        modules.append("components.language.place_embedding")
    if kind == "train" and params.number_loss != "none":
        modules.append("components.language.number_loss")
    if kind == "train" and params.smoothing:
        modules.append("components.language.label_smoothing")
    return tuple(modules)
