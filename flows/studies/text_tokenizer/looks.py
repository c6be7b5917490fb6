"""What was seen of a training: gap and behaviour after growing numbers of training characters."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.analysis.token_behaviour import SERIES


class Looks:
    """What was seen of a training: gap and behaviour after growing numbers of training characters.

    Attributes:
        steps, characters, gap, kl_unigram, kl_truth: One value per look.
    """

    def __init__(self, series: dict[str, np.ndarray], rate: float, unigram: float) -> None:
        self.steps, self.characters = series["step"], series["characters"]
        self.gap = (series["nats_per_character"] - rate) / (unigram - rate)
        self.kl_unigram, self.kl_truth = series["kl_unigram"], series["kl_truth"]

    @classmethod
    def of(cls, curves: pl.DataFrame, rate: float, unigram: float) -> Looks:
        """Read the curves that a training wrote.

        Args:
            curves: Its `curves.parquet`.
            rate: Entropy rate of the source.
            unigram: Entropy of one of its characters.
        """
        wanted = curves.filter(pl.col("series").is_in(["characters", *SERIES])).sort("step")
        parts = {name: part for (name,), part in wanted.group_by("series", maintain_order=True)}
        series = {name: part["value"].to_numpy() for name, part in parts.items()}
        return cls({"step": parts["characters"]["step"].to_numpy(), **series}, rate, unigram)

    def characters_until(self, gap: float, budget: float) -> float:
        """Return the training characters at the first look with a smaller gap, the budget where there is none."""
        below = np.flatnonzero(self.gap < gap)
        return float(self.characters[below[0]]) if len(below) else float(budget)

    def gap_at(self, characters: float) -> float:
        """Return the gap at the first look after at least so many training characters, the last one's if none is."""
        place = min(int(np.searchsorted(self.characters, characters)), len(self.gap) - 1)
        return float(self.gap[place])
