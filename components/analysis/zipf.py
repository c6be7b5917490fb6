"""Rank-frequency laws: how the frequencies of types fall with their rank, and which law describes it.

    Zipf               p(r) ~ r^-s
    Zipf-Mandelbrot    p(r) ~ (r + b)^-s
    Yule-Simon         P(count = k) = rho B(k, rho + 1)       (counts of counts)

The first two are fitted by maximum likelihood over ranks: each of the N occurrences is a draw of a rank from 1 to R. No
line is drawn through log-log points, where the many rare types of noisy rank would decide. The third is a law of how
many types occur k times; it is fitted as such, and its quantiles give shares over ranks, by which all three are
compared.

Letters: `R` ranks (types that are kept), `N` occurrences, `V` types.

Sources: Zipf 1949; Mandelbrot 1953; Simon 1955, "On a class of skew distribution functions"; Clauset, Shalizi and
Newman 2009, "Power-law distributions in empirical data" (likelihood and cut-off).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import betaln, gammaln

from components.errors import TesseraError

Law = Literal["zipf", "zipf_mandelbrot", "yule_simon"]
LAWS: tuple[Law, ...] = ("zipf", "zipf_mandelbrot", "yule_simon")
_LARGEST_EXPONENT = 50.0
_NEWTON_STEPS = 100
_SHIFTS = 20


class RankLawError(TesseraError):
    """Too few types are left to fit a law to."""


@dataclass(frozen=True)
class RankLaw:
    """A law fitted to a rank-frequency table.

    Attributes:
        law: Which one.
        exponent: s of the first two, rho of the third.
        shift: b, 0 where the law has none.
        log_likelihood: Log-likelihood of the ranks of all occurrences, in nats.
        per_type: The same divided by R.
        ks: Kolmogorov-Smirnov distance of the shares accumulated over ranks.
        bic: Bayes information criterion `parameters ln N - 2 log_likelihood`; the smallest wins.
    """

    law: Law
    exponent: float
    shift: float
    log_likelihood: float
    per_type: float
    ks: float
    bic: float


def rank_frequencies(counts: np.ndarray, least_count: int = 1) -> np.ndarray:
    """Return the counts of at least `least_count` in descending order, (R,).

    Raises:
        RankLawError: Fewer than two are left.
    """
    kept = np.sort(counts[counts >= max(1, least_count)])[::-1]
    if len(kept) < 2:
        raise RankLawError(f"{len(kept)} types occur {least_count} times or more; expected at least 2.")
    return kept


def fit_rank_laws(counts: np.ndarray, least_count: int = 1) -> dict[Law, RankLaw]:
    """Fit all laws to counts of types (V,).

    Args:
        counts: Occurrences of each type; zeros are no types.
        least_count: Types that occur less often are left out of the ranks: the lower cut-off. Their ranks are decided
            by chance.

    Raises:
        RankLawError: Fewer than two types are left.
    """
    frequencies = rank_frequencies(counts, least_count)
    ranks = np.arange(1, len(frequencies) + 1, dtype=np.float64)
    exponent = _exponent(np.log(ranks), frequencies)
    shift = _shift(ranks, frequencies)
    shifted = np.log(ranks + shift)
    rho = yule_simon_rho(counts)
    return {
        "zipf": _law("zipf", exponent, 0.0, -exponent * np.log(ranks), frequencies, 1),
        "zipf_mandelbrot": _mandelbrot(shift, shifted, frequencies),
        "yule_simon": _law("yule_simon", rho, 0.0, np.log(yule_simon_counts(rho, ranks, counts)), frequencies, 1),
    }


def winner(laws: dict[Law, RankLaw]) -> Law:
    """Return the law with the smallest BIC."""
    return min(laws.values(), key=lambda law: law.bic).law


def curvature(counts: np.ndarray, points: int = 40) -> float:
    """Return the quadratic coefficient c of `ln f = a + b ln r + c (ln r)^2`, at ranks evenly spaced in ln r.

    0 is a straight line, positive a convex curve (steep head, flat tail), negative a concave one. It describes the
    shape of the whole curve, so no cut-off is made.
    """
    frequencies = rank_frequencies(counts)
    ranks = np.unique(np.geomspace(1, len(frequencies), points).round().astype(int))
    if len(ranks) < 3:
        return 0.0
    return float(np.polyfit(np.log(ranks), np.log(frequencies[ranks - 1]), 2)[0])


def yule_simon_rho(counts: np.ndarray) -> float:
    """Return the rho of `P(count = k) = rho B(k, rho + 1)` by maximum likelihood over the types that occur."""
    present = counts[counts > 0]
    sizes, types = np.unique(present, return_counts=True)

    def cost(log_rho: float) -> float:
        rho = np.exp(log_rho)
        return -float((types * (log_rho + betaln(sizes, rho + 1))).sum())

    return float(np.exp(minimize_scalar(cost, bounds=(-7, 7), method="bounded", options={"xatol": 1e-6}).x))


def yule_simon_counts(rho: float, ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the counts that a Yule-Simon law gives the types at `ranks` (R,), the largest first.

    The quantiles at (r - 1/2) / V of its tail `P(count > k) = Gamma(rho + 1) Gamma(k + 1) / Gamma(k + rho + 1)`.
    """
    types = int((counts > 0).sum())
    grid = np.concatenate([[0.0], np.geomspace(1e-3, 1e3 * counts.max(), 4000)])
    tail = gammaln(rho + 1) + gammaln(grid + 1) - gammaln(grid + rho + 1)
    wanted = np.log((ranks - 0.5) / types)
    return np.maximum(1.0, np.ceil(np.interp(-wanted, -tail, grid)))


def _exponent(log_ranks: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the s at which the model's mean of ln r equals the data's: Newton's method on a concave likelihood."""
    shares = frequencies / frequencies.sum()
    wanted = float(shares @ log_ranks)
    exponent = 1.0
    for _ in range(_NEWTON_STEPS):
        weights = np.exp(-exponent * (log_ranks - log_ranks[0]))
        weights /= weights.sum()
        mean = float(weights @ log_ranks)
        spread = float(weights @ np.square(log_ranks - mean))
        step = (mean - wanted) / max(spread, 1e-12)
        # Far from the optimum a step could leave the range in which the weights are finite.
        step = float(np.clip(step, -1.0, 1.0))
        exponent = float(np.clip(exponent + step, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
        if abs(step) < 1e-10:
            break
    return exponent


def _shift(ranks: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the b of Zipf-Mandelbrot: the best of a grid in ln b, refined between its neighbours."""

    def cost(log_shift: float) -> float:
        return -_rank_likelihood(np.log(ranks + np.exp(log_shift)), frequencies)

    # At b far beyond R all ranks have one probability: nothing larger is ever better.
    grid = np.linspace(np.log(1e-3), np.log(10.0 * len(ranks)), _SHIFTS)
    best = int(np.argmin([cost(log_shift) for log_shift in grid]))
    bounds = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def _rank_likelihood(log_ranks: np.ndarray, frequencies: np.ndarray) -> float:
    logits = -_exponent(log_ranks, frequencies) * log_ranks
    return float(frequencies @ _normalised(logits))


def _normalised(logits: np.ndarray) -> np.ndarray:
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


def _mandelbrot(shift: float, log_ranks: np.ndarray, frequencies: np.ndarray) -> RankLaw:
    exponent = _exponent(log_ranks, frequencies)
    return _law("zipf_mandelbrot", exponent, shift, -exponent * log_ranks, frequencies, 2)


def _law(
    law: Law, exponent: float, shift: float, logits: np.ndarray, frequencies: np.ndarray, parameters: int
) -> RankLaw:
    log_shares = _normalised(logits)
    total = frequencies.sum()
    likelihood = float(frequencies @ log_shares)
    ks = float(np.abs(np.cumsum(np.exp(log_shares)) - np.cumsum(frequencies) / total).max())
    bic = parameters * float(np.log(total)) - 2 * likelihood
    return RankLaw(law, exponent, shift, likelihood, likelihood / len(frequencies), ks, bic)
