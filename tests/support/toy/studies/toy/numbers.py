"""Numbers from a seeded generator."""

from __future__ import annotations

import random


def draw(count: int, spread: float, seed: int) -> list[float]:
    """Return `count` normal numbers around zero."""
    generator = random.Random(seed)
    return [generator.gauss(0.0, spread) for _ in range(count)]
