"""Stage 4 judged on pairs that did not select: tokens verified on one half of the pairs count on the other.

Letters: T tokens, P pairs, M modes of insertion, K numbers of copies (0 first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from components.analysis.sticky_scoring import moved_fractions, spread_ratio
from components.metrics.stats import jackknife_influence
from components.metrics.tables import MetricTable
from flows.studies.analysis.sticky_tokens.params import EvaluateParams


@dataclass(frozen=True)
class Verified:
    """Tokens on the two halves of the pairs, every other pair of the grid each.

    Attributes:
        distances: (T, P, M, K).
        fractions: Weighted share of modes moved toward the mean, (T, P).
        halves: Pairs of each half.
        chosen: Tokens that count on each half.
        bars: Share that a token had to exceed on the other half; nothing where all tokens count.
    """

    distances: np.ndarray
    fractions: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    chosen: tuple[np.ndarray, np.ndarray]
    bars: tuple[float, ...] = ()

    @classmethod
    def of(cls, distances: np.ndarray, params: EvaluateParams) -> Verified:
        """Split the pairs and choose the tokens."""
        fractions = moved_fractions(distances)
        pairs = np.arange(distances.shape[1])
        halves = (pairs[::2], pairs[1::2])
        if params.selection == "all":
            return cls(distances, fractions, halves, (np.arange(len(distances)),) * 2)
        shares = [fractions[:, other].mean(1) for other in halves[::-1]]
        bars = tuple(outlier_bar(share, params.outliers) for share in shares)
        chosen = tuple(np.flatnonzero(share > bar) for share, bar in zip(shares, bars, strict=True))
        return cls(distances, fractions, halves, chosen, bars)

    @property
    def counts(self) -> list[int]:
        """Tokens that count on each half."""
        return [len(tokens) for tokens in self.chosen]

    def by_pair(self) -> np.ndarray:
        """Return the mean fraction of the tokens that count on each pair, (P,); 0 where none does."""
        rows = np.zeros(self.distances.shape[1])
        for half, tokens in zip(self.halves, self.chosen, strict=True):
            if len(tokens):
                rows[half] = self.fractions[np.ix_(tokens, half)].mean(0)
        return rows

    def by_token(self) -> dict[int, float]:
        """Return the mean fraction of each token on the pairs where it counts."""
        rows: dict[int, list[float]] = {}
        for half, tokens in zip(self.halves, self.chosen, strict=True):
            for token in tokens.tolist():
                rows.setdefault(token, []).extend(self.fractions[token, half].tolist())
        return {token: float(np.mean(values)) for token, values in sorted(rows.items())}

    def spread(self, kept: np.ndarray) -> float:
        """Return the ratio of spreads over the pairs kept, the mean of the two halves; 1 where no token counts."""
        ratios = []
        for half, tokens in zip(self.halves, self.chosen, strict=True):
            pairs = half[np.isin(half, kept)]
            ratios.append(spread_ratio(self.distances[np.ix_(tokens, pairs)]) if len(tokens) else 1.0)
        return float(np.mean(ratios))

    def ordered(self) -> np.ndarray:
        """Return the tokens, those moved most over all pairs first, ties in their order."""
        return np.argsort(-self.fractions.mean(1), kind="stable")


def outlier_bar(shares: np.ndarray, ranges: float) -> float:
    """Return the value that lies so many interquartile ranges above the third quartile."""
    lower, upper = np.quantile(shares, [0.25, 0.75])
    return float(upper + ranges * (upper - lower))


def measure(
    table: MetricTable, verified: Verified, above: np.ndarray | None, params: EvaluateParams, seed: int
) -> None:
    """Add what verification, spreads and pairs above the mean say, one value per pair.

    Args:
        table: Where to add.
        verified: The halves.
        above: Distances on pairs above the mean, (T, P', M, 2); None for none.
        params: Parameters.
        seed: Names the pairs of this sample.
    """
    pairs = verified.distances.shape[1]
    names = [f"s{seed}-p{pair}" for pair in range(pairs)]
    table.add_items("verification_fraction", verified.by_pair().tolist(), unit="fraction", items=names)
    everything = np.arange(pairs)
    without = np.array([verified.spread(np.delete(everything, pair)) for pair in everything])
    rows = jackknife_influence(verified.spread(everything), without)
    table.add_items("spread_ratio", rows.tolist(), unit="ratio", items=names)
    fewest = min(verified.counts)
    table.add("tokens_detected", fewest, unit="tokens", samples=len(verified.distances))
    table.add("enough_detected", float(fewest >= params.least_detected), unit="", samples=2)
    if verified.bars:
        table.add("verification_bar", float(np.mean(verified.bars)), unit="fraction", samples=len(verified.distances))
    passing = sorted({token for tokens in verified.chosen for token in tokens.tolist()})
    if above is not None and passing:
        moved = moved_fractions(above[passing], toward_first=False).mean(0)
        items = [f"s{seed}-a{pair}" for pair in range(len(moved))]
        table.add_items("moved_fraction_above", moved.tolist(), unit="fraction", items=items)


def contraction(distances: np.ndarray, centre: float) -> np.ndarray:
    """Return the mean distance of cosine from u after the most copies over that before, by token (T,)."""
    apart = np.abs(1 - distances - centre)
    return apart[..., -1].mean((1, 2)) / apart[..., 0].mean((1, 2))


def token_table(tokens: pl.DataFrame, verified: Verified) -> pl.DataFrame:
    """Return the tokens that count somewhere, with their fractions there and on all pairs."""
    found = verified.by_token()
    rows = list(found)
    return tokens[rows].with_columns(
        judged=pl.Series(list(found.values()), dtype=pl.Float64),
        fraction=pl.Series(verified.fractions[rows].mean(1), dtype=pl.Float64),
        after=pl.Series((1 - verified.distances[rows][..., -1]).mean((1, 2)), dtype=pl.Float64),
    )
