"""The arithmetic mean."""

from __future__ import annotations


def estimate(numbers: list[float]) -> float:
    """Return the mean."""
    return sum(numbers) / len(numbers)
