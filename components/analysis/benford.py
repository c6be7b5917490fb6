"""Naturalness of counts: do their leading digits follow Benford's law?

    P(d) = log10(1 + 1 / d),   d = 1 to 9

Source: Benford 1938, "The law of anomalous numbers"; Nigrini 2012 (mean absolute deviation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.errors import TesseraError

BENFORD = np.log10(1 + 1 / np.arange(1, 10))


@dataclass(frozen=True)
class LeadingDigits:
    """Leading digits of numbers, beside Benford's law.

    Attributes:
        shares: Share of each digit 1 to 9, (9,).
        numbers: How many numbers.
        chi_square: `sum_d n (share - P)^2 / P`, 8 degrees of freedom.
        mad: Mean absolute deviation of the shares.
    """

    shares: np.ndarray
    numbers: int
    chi_square: float
    mad: float


def leading_digits(numbers: np.ndarray) -> np.ndarray:
    """Return the first decimal digit of each positive integer."""
    digits = np.array(numbers, dtype=np.int64)
    while (large := digits >= 10).any():
        digits[large] //= 10
    return digits


def benford(numbers: np.ndarray) -> LeadingDigits:
    """Compare the leading digits of the positive ones among some integers with Benford's law.

    Raises:
        TesseraError: None is positive.
    """
    positive = np.asarray(numbers)[np.asarray(numbers) > 0]
    if not len(positive):
        raise TesseraError("no positive number has a leading digit; expected counts of at least one type.")
    shares = np.bincount(leading_digits(positive), minlength=10)[1:] / len(positive)
    chi_square = float(len(positive) * (np.square(shares - BENFORD) / BENFORD).sum())
    return LeadingDigits(shares, len(positive), chi_square, float(np.abs(shares - BENFORD).mean()))
