"""What the judge adds to measurements: decoder-only block diffusion at the method's throughput, and the figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.discrete_diffusion.e2d2.figures import METHOD, NETWORKS, BlockFigures


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures that the variant's arms allow, and return what claims compare at equal throughput."""
    figures = BlockFigures(stage)
    captions = "caption_validity" in figures.metric_names(METHOD)
    if captions:
        figures.validity()
    else:
        figures.frontier()
        figures.evaluations()
        figures.arms()
    figures.written(captions)
    return at_equal_throughput(figures, captions)


def interpolated(method: float, seconds: Mapping[int, float]) -> tuple[int, int, float, bool]:
    """Return which two depths stand around the method's seconds per token, and how far it is from one to the other.

    Args:
        method: Seconds per token.
        seconds: The same by depth, two or more.

    Returns:
        The two depths, the share of the second, and whether they bracket the method and are one layer apart. Where no
        two bracket it, the nearest two are prolonged.
    """
    depths = sorted(seconds, key=seconds.__getitem__)
    above = sum(seconds[depth] < method for depth in depths)
    upper = min(max(above, 1), len(depths) - 1)
    first, second = depths[upper - 1], depths[upper]
    share = (method - seconds[first]) / (seconds[second] - seconds[first])
    return first, second, share, 0 <= share <= 1 and abs(second - first) == 1


def at_equal_throughput(figures: BlockFigures, captions: bool) -> dict[tuple[str, int], MetricTable]:
    """Return, for each seed of the method, what decoder-only block diffusion reaches at the same seconds per token.

    Decoder-only depths are interpolated item by item, linearly in seconds per token; a repeat of the measurement of
    speed stands beside each seed.
    """
    depths = dict(figures.depths())
    tables: dict[tuple[str, int], MetricTable] = {}
    bought: dict[int, float] = {}
    for seed, run in figures.runs(METHOD).items():
        table = tables[METHOD, seed] = MetricTable()
        seconds = {depth: figures.seconds(seed, f"decoder_only-{depth}") for depth in depths}
        first, second, share, bracketed = interpolated(figures.seconds(seed, NETWORKS[METHOD]), seconds)
        table.add("bracketed", float(bracketed), unit="", samples=len(depths))
        metric, at = ("caption_validity", figures.one_by_one()) if captions else ("nll_bound", "")
        own, left, right = (
            _items(figures.frame(path), metric, at)
            for path in (run, *(figures.runs(depths[depth])[seed] for depth in (first, second)))
        )
        gap = (1 - share) * left["value"].to_numpy() + share * right["value"].to_numpy() - own["value"].to_numpy()
        names = own["sample"].to_list()
        if captions:
            table.add_items("validity_shortfall", gap, unit="share", items=names)
            arms = [METHOD, *depths.values()]
            best = max(_items(figures.frame(figures.runs(arm)[seed]), metric, at)["value"].mean() for arm in arms)
            table.add("best_validity", best, unit="share", samples=len(names))
        else:
            table.add_items("bought_nats", gap, unit="nats/token", items=names, normaliser="tokens")
            bought[seed] = float(gap.mean())
    for seed in bought:
        median = float(np.median(list(bought.values())))
        tables[METHOD, seed].add("bought_nats_median", median, unit="nats/token", samples=len(bought))
    return tables


def _items(frame: pl.DataFrame, metric: str, at: str) -> pl.DataFrame:
    """Rows of a metric of one run by item, in the order of their names, so that arms pair."""
    return frame.filter(pl.col("metric") == metric, pl.col("at") == at).sort("sample")
