"""What compares arms: detected tokens with random ones on the same pairs and queries, rankings; and the figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.stats import mannwhitneyu

from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.declarations.resolve import resolve
from flows.studies.analysis.sticky_tokens.evaluate import JUDGED, PAIRS, RETRIEVAL, SCORES, mean_auc
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

DETECTED, RANDOM = "std_detected", "random_tokens"
RANKINGS = ("std_score", "no_distance_term", "bare_score", "random_score")
_RESAMPLES, _PERMUTATIONS = 5, 6  # random streams
_SHOWN = {
    "std_detected": ("#c8553d", "detected, cross-fitted"),
    "std_shortlist_only": ("#e0932f", "top of the scan, unverified"),
    "random_tokens": ("#1b6ca8", "random tokens"),
    "frequent_words": ("#6b6b6b", "frequent words"),
}


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return what follows from two arms, or from all samples of one, by arm and seed."""
    tables = {run: MetricTable() for run in stage.evaluations}
    for (arm, seed), table in tables.items():
        if arm == DETECTED and (RANDOM, seed) in tables:
            _against_random(stage, seed, table)
    for arm in RANKINGS:
        _joint_permutation(stage, arm, {seed: table for (name, seed), table in tables.items() if name == arm})
    figures = _Figures(stage)
    figures.fractions()
    figures.pairs()
    figures.attention()
    figures.retrieval()
    return tables


def _against_random(stage: JudgeContext, seed: int, table: MetricTable) -> None:
    params = resolve(stage.paper, stage.variant, DETECTED, stage.profile, "evaluate")
    runs = [stage.evaluations[arm, seed] for arm in (DETECTED, RANDOM)]
    detected, drawn = (pl.read_parquet(run / JUDGED)["judged"].to_numpy() for run in runs)
    p = float(mannwhitneyu(detected, drawn, alternative="greater").pvalue) if len(detected) else 1.0
    table.add("mann_whitney_p", p, unit="probability", samples=len(detected) + len(drawn))
    first, second = (np.stack(pl.read_parquet(run / RETRIEVAL)["ndcg"].to_list()) for run in runs)
    generator = np.random.default_rng(derive_seed(seed, _RESAMPLES))
    value, variance = excess_drop(first, second, params.resamples, generator)
    table.add("excess_drop", value, unit="%", samples=first.shape[1], variance=variance, normaliser="mean nDCG without")


def excess_drop(
    detected: np.ndarray, drawn: np.ndarray, resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the relative drop of nDCG by detected tokens minus that by random ones, and its bootstrap variance.

    Queries are resampled for both alike, tokens of each by themselves.

    Args:
        detected: nDCG without insertion in row 0, then with each token, (1 + T, Q).
        drawn: The same with random tokens; row 0 is equal.
        resamples: Number of resamples.
        generator: Draws them.

    Returns:
        Percent points of the mean nDCG without insertion, and their variance.
    """

    def drop(gains: np.ndarray, tokens: np.ndarray, queries: np.ndarray) -> float:
        before = gains[0, queries].mean()
        return 100 * (before - gains[1 + tokens][:, queries].mean()) / max(before, 1e-9)

    counts, queries = (len(detected) - 1, len(drawn) - 1), detected.shape[1]
    value = sum(
        sign * drop(gains, np.arange(count), np.arange(queries))
        for sign, gains, count in ((1, detected, counts[0]), (-1, drawn, counts[1]))
    )
    draws = []
    for _ in range(resamples):
        asked = generator.integers(queries, size=queries)
        parts = [
            drop(gains, generator.integers(count, size=count), asked)
            for gains, count in zip((detected, drawn), counts, strict=True)
        ]
        draws.append(parts[0] - parts[1])
    return float(value), float(np.var(draws, ddof=1))


def _joint_permutation(stage: JudgeContext, arm: str, tables: dict[int, MetricTable]) -> None:
    """Add to every sample the probability of the AUC averaged over samples; labels move alike in all of them."""
    if not tables:
        return
    params = resolve(stage.paper, stage.variant, arm, stage.profile, "evaluate")
    frames = [pl.read_parquet(stage.evaluations[arm, seed] / SCORES) for seed in sorted(tables)]
    kept = [frame.filter(pl.col("kind").is_in(["published", "random"])) for frame in frames]
    scores = np.stack([frame["score"].to_numpy() for frame in kept])
    labels = (kept[0]["kind"] == "published").to_numpy()
    found = mean_auc(scores, labels)
    generator = np.random.default_rng(derive_seed(0, _PERMUTATIONS))
    reached = sum(mean_auc(scores, generator.permutation(labels)) >= found for _ in range(params.permutations))
    p = (1 + reached) / (1 + params.permutations)
    for table in tables.values():
        table.add("published_p", p, unit="probability", samples=len(labels))


class _Figures(RunFigures):
    def _shown(self) -> Iterator[tuple[str, str, str]]:
        for arm, (colour, name) in _SHOWN.items():
            if self.has(arm):
                yield arm, colour, name

    def fractions(self) -> None:
        """Draw how often each token moves pairs toward the mean."""
        caption = (
            "Weighted share of cases (pairs of sentences, three places of insertion) in which inserting a token "
            "moves the cosine of a pair toward the mean cosine of tokens. One dot per token and sample. A "
            "detected token was chosen on one half of the pairs and is shown on the other. Dotted: what a "
            "token has to exceed to be chosen, in each sample."
        )
        shown = list(self._shown())
        if not shown:
            return
        with self.figure("fractions", caption, 1, 1, (5.0, 3.0)) as (_, axes):
            axis = axes[0][0]
            generator = np.random.default_rng(0)
            for row, (arm, colour, _) in enumerate(shown):
                for run in self.runs(arm).values():
                    judged = pl.read_parquet(run / JUDGED)["judged"].to_numpy()
                    places = row + generator.uniform(-0.25, 0.25, len(judged))
                    axis.plot(judged, places, ".", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
            for _, frame in self.values(DETECTED, "verification_bar"):
                axis.axvline(frame["value"][0], color="#8a8a8a", linewidth=0.7, linestyle=":")
            axis.set_yticks(range(len(shown)), [name for _, _, name in shown])
            axis.invert_yaxis()
            axis.set_xlim(-0.02, 1.02)
            axis.set_xlabel("share of cases moved toward the mean")

    def pairs(self) -> None:
        """Draw the cosine of each pair after insertion against before."""
        caption = (
            "Cosine of pairs of sentences after 8 copies were inserted, mean over tokens and places, against the "
            "cosine before; one dot per pair of all samples. Dashed: no change. Dotted: the mean cosine u of "
            "single tokens, which sticky tokens are said to pull to. A flat cloud means that the edit decides the"
            " cosine, not the sentences."
        )
        arms = [each for each in self._shown() if each[0] != "std_shortlist_only"]
        if not arms:
            return
        with self.figure("pairs", caption, 1, len(arms), (2.6 * len(arms), 2.8), sharex=True, sharey=True) as (_, axes):
            for axis, (arm, colour, name) in zip(axes[0], arms, strict=True):
                for run in self.runs(arm).values():
                    frame = pl.read_parquet(run / PAIRS)
                    axis.plot(frame["before"], frame["after"], ".", color=colour, markersize=3)
                for _, frame in self.values(arm, "mean_similarity"):
                    axis.axhline(frame["value"][0], color="#8a8a8a", linewidth=0.7, linestyle=":")
                low, high = axis.get_xlim()
                axis.plot([low, high], [low, high], "--", color="#8a8a8a", linewidth=0.7)
                axis.set_title(name, fontsize=8)
                axis.set_xlabel("cosine before")
            axes[0][0].set_ylabel("cosine after 8 copies")

    def attention(self) -> None:
        """Draw attention to inserted copies, and how far maps move, by layer."""
        arms = [each for each in self._shown() if each[0] in (DETECTED, RANDOM)]
        if len(arms) < 2:
            return
        caption = (
            "Attention in each layer when 8 copies of a token stand before a sentence. Left: share of all "
            "attention that the copies receive. Right: Frobenius distance of the maps between the sentence's own "
            "tokens, before and after, mean over heads. One line per sample."
        )
        with self.figure("attention", caption, 1, 2, (6.4, 2.6)) as (_, axes):
            for axis, metric, label in zip(
                axes[0], ("attention_share", "attention_distance"), ("share to copies", "distance of maps"), strict=True
            ):
                for arm, colour, name in arms:
                    for number, (_, frame) in enumerate(self.values(arm, metric)):
                        means = frame.group_by("at", maintain_order=True).agg(pl.col("value").mean())
                        layers = 1 + np.arange(len(means))
                        style = {"label": name if not number else None, "color": colour, "linewidth": 1.0}
                        axis.plot(layers, means["value"], "o-", markersize=3, **style)
                axis.set_xlabel("layer")
                axis.set_ylabel(label)
                axis.set_ylim(bottom=0)
            axes[0][0].legend(fontsize=7)

    def retrieval(self) -> None:
        """Draw nDCG with each token before every document."""
        arms = [each for each in self._shown() if each[0] in (DETECTED, RANDOM)]
        if len(arms) < 2:
            return
        caption = (
            "nDCG at 10 of queries for their passages when 8 copies of one token stand before every passage. One "
            "dot per token and sample; the short line is the value without insertion in that sample."
        )
        with self.figure("retrieval", caption, 1, 1, (4.6, 2.6)) as (_, axes):
            axis = axes[0][0]
            for shift, (arm, colour, name) in zip((-0.15, 0.15), arms, strict=True):
                for seed, run in self.runs(arm).items():
                    means = pl.read_parquet(run / RETRIEVAL)["ndcg"].list.mean().to_numpy()
                    style = {"color": colour, "label": name if not seed else None}
                    axis.plot(np.full(len(means) - 1, seed + shift), means[1:], "o", markersize=3.5, alpha=0.7, **style)
                    axis.hlines(means[0], seed - 0.3, seed + 0.3, color="#3a3a3a", linewidth=0.9)
            axis.set_xticks(sorted(self.runs(DETECTED)))
            axis.set_xlabel("sample")
            axis.set_ylabel("nDCG at 10")
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=7)
