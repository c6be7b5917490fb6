"""Pairs of sentences with human scores: which are held out, and how an encoder's cosines agree with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from components.data import sts
from components.data.connected_split import connected_groups, held_out
from components.metrics.stats import jackknife_influence, spearman
from components.metrics.tables import MetricTable
from flows.studies.analysis.siamese_attribution.params import TrainParams

LARGEST_SCORE = 5.0


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of sentences in the order of their table.

    Attributes:
        names: Row of each pair in the table.
        first: One sentence of each pair.
        second: The other.
        target: Human similarity over its largest value, float32, 0 to 1.
    """

    names: list[int]
    first: list[str]
    second: list[str]
    target: np.ndarray


def read(directory: Path, params: TrainParams, *, test: bool) -> ScoredPairs:
    """Return the pairs to tune on, or those held out: the same for every seed and arm."""
    table = sts.pairs(directory).with_row_index("row")
    groups = connected_groups(table["sentence1"].to_list(), table["sentence2"].to_list())
    part = table.filter(pl.Series(held_out(groups, params.test_pairs) == test))
    if not test and params.train_pairs:
        part = part.head(params.train_pairs)
    return ScoredPairs(
        part["row"].to_list(),
        part["sentence1"].to_list(),
        part["sentence2"].to_list(),
        (part["score"].to_numpy() / LARGEST_SCORE).astype(np.float32),
    )


def add_agreement(table: MetricTable, similarity: np.ndarray, pairs: ScoredPairs) -> None:
    """Add the rank correlation, in points, as one row for each pair whose mean it is; rows of two arms pair."""
    target = pairs.target.astype(np.float64)
    without = [spearman(np.delete(similarity, row), np.delete(target, row)) for row in range(len(target))]
    rows = 100 * jackknife_influence(spearman(similarity, target), np.array(without))
    table.add_items("spearman", rows.tolist(), unit="points", items=pairs.names)
