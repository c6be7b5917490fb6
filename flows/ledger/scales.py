"""Axes of the ledger's drawings: where a value lies, and at which round numbers a reader finds his way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from flows.ledger.verdicts import number

LOG_FROM = 20.0
"""A positive quantity that spans more than this factor is read better on a logarithmic axis."""


@dataclass(frozen=True)
class Scale:
    """Maps values onto a line on the page.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Coordinate of `low`.
        end: Coordinate of `high`.
        log: Whether equal steps are equal factors.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value, kept on the line."""
        low, high = self._on_axis(self.low), self._on_axis(self.high)
        share = (self._on_axis(max(value, self.low)) - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def _on_axis(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values inside the scale, at most `most` of them."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def fit(values: Iterable[float], start: float, end: float, *, margin: float = 0.06, log: bool | None = None) -> Scale:
    """Return a scale that holds every value with some room around them.

    Args:
        values: Finite values, at least one.
        start: Coordinate of the smallest.
        end: Coordinate of the largest.
        margin: Room at both ends, as a share.
        log: Whether it is logarithmic; where None, if all are positive and span more than a factor of 20.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    if log is None:
        log = low > 0 and high / low > LOG_FROM
    if log:
        room = (high / low) ** margin if high > low else 1.5
        return Scale(low / room, high * room, start, end, log=True)
    room = margin * (high - low) if high > low else 0.1 * abs(high) or 1.0
    return Scale(low - room, high + room, start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            digits = 12 - math.floor(math.log10(step))
            return [round(index * step, digits) for index in range(first, last + 1)]
    raise AssertionError("fifty times the tenth power below a part of the span leaves at most two ticks")


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found or [low * math.sqrt(high / low)]
    every = math.ceil(len(found) / most)
    return found[::every]


def tick_words(value: float) -> str:
    """Spell a tick in few characters: `0.05`, `2,000`, `1.6M`."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            factor = {"k": 1e3}.get(suffix, size)
            return f"{value / factor:g}{suffix}".replace("-", "−")
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 1000 else number(value)


def text_width(words: str, size: float) -> float:
    """Estimate how wide words are in a sans-serif face of a size, in the same unit."""
    return 0.56 * size * len(words)
