"""How wrong a number is that was written as text, and what to do with text that is no number.

Letters: N answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from components.errors import TesseraError
from components.metrics.stats import jackknife_influence

NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?$"
WORST = 2.0


class NumericMetricError(TesseraError):
    """A numeric metric is not defined for what it was given."""


def parse_numbers(texts: Sequence[str]) -> np.ndarray:
    """Read each text as one number with optional sign and decimals, (N,) float64; NaN where it is anything else.

    Nothing is searched for inside a text: "12 or 13" is no answer.
    """
    column = pl.Series(list(texts), dtype=pl.String).str.strip_chars()
    numbers = column.set(~column.str.contains(NUMBER), None).cast(pl.Float64)
    return numbers.fill_null(float("nan")).to_numpy().copy()


def unparsable_share(predicted: np.ndarray) -> float:
    """Return the share of answers that are no number, (N,) with NaN for these."""
    return float(np.isnan(predicted).mean())


def exact_match(texts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Return 1 where a text is the answer, character by character up to space around it, else 0, (N,) float64."""
    pairs = zip(texts, answers, strict=True)
    return np.array([text.strip() == answer.strip() for text, answer in pairs], np.float64)


def blind_error(truth: np.ndarray, constant: float) -> float:
    """Return the mean absolute error of always answering one constant, such as the training median.

    Raises:
        NumericMetricError: It is zero, so that nothing can be measured in units of it.
    """
    error = float(np.abs(truth - constant).mean())
    if not error > 0:
        raise NumericMetricError(
            f"all {len(truth)} true values equal the constant {constant}: there is nothing to predict. Expected "
            "questions with different answers."
        )
    return error


def normalised_error(predicted: np.ndarray, truth: np.ndarray, blind: float) -> np.ndarray:
    """Return min(|predicted - truth| / blind, 2) of each answer, 2 where there is no number, (N,).

    A raw mean is decided by a handful of answers with a digit too many; here none counts for more than twice the
    error of knowing nothing.

    Args:
        predicted: (N,), NaN where an answer is no number.
        truth: (N,).
        blind: Mean absolute error of a constant answer, see `blind_error`.
    """
    error = np.minimum(np.abs(predicted - truth) / blind, WORST)
    return np.where(np.isnan(predicted), WORST, error)


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return 1 - sum (p - t)^2 / sum (t - mean t)^2 over the answers that are numbers; 0 where these do not vary."""
    numbers = ~np.isnan(predicted)
    spread = np.square(truth[numbers] - truth[numbers].mean()).sum() if numbers.any() else 0.0
    return float(1 - np.square(predicted[numbers] - truth[numbers]).sum() / spread) if spread > 0 else 0.0


def median_absolute_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the median of |p - t|, an answer that is no number counting as infinitely wrong; inf if most are."""
    return float(np.median(np.where(np.isnan(predicted), np.inf, np.abs(predicted - truth))))


def rmse_rows(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return one row per item whose mean is the root mean squared error and whose variance is its jackknife's, (N,).

    Rows of two models on the same items pair, as values of an ordinary mean do.

    Raises:
        NumericMetricError: A prediction is no number.
    """
    if np.isnan(predicted).any():
        raise NumericMetricError("a prediction is no number; a root mean squared error over the others would flatter.")
    squared = np.square(predicted - truth)
    without = np.sqrt((squared.sum() - squared) / (len(squared) - 1))
    return jackknife_influence(float(np.sqrt(squared.mean())), without)


def decimal_value(digit_values: np.ndarray) -> np.ndarray:
    """Return sum_place 10^place v of digit values from the highest place to the ones, (..., A) to (...).

    The values may be expected ones, E_q[v], so that a distribution over digits becomes a real number.
    """
    return digit_values @ 10.0 ** np.arange(digit_values.shape[-1] - 1, -1, -1)
