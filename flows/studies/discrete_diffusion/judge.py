"""Figures of the study: what decoders write, against the number of steps they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from matplotlib.axes import Axes

from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5fa8", "#b8860b", "#5f6b73", "#17a2b8")


def derive(stage: JudgeContext) -> None:
    """Draw quality against steps for every arm of the variant."""
    arms = list(dict.fromkeys(arm for arm, _ in stage.evaluations))
    quality_figure(QualityFigures(stage), dict(zip(arms, arms, strict=True)))


class QualityFigures(RunFigures):
    """Reads curves over steps."""

    def curve(self, arm: str, metric: str) -> pl.DataFrame:
        """Return the mean over items of each seed by steps: `seed`, `steps`, `value`, sorted."""
        rows = [
            frame.filter(pl.col("at").str.contains(r"^steps=\d+$"))
            .with_columns(pl.col("at").str.extract(r"steps=(\d+)").cast(pl.Int64).alias("steps"))
            .group_by("steps")
            .agg(pl.col("value").mean())
            .with_columns(seed=pl.lit(seed))
            for seed, frame in self.values(arm, metric)
        ]
        return pl.concat(rows).sort("steps", "seed")


def quality_figure(
    figures: QualityFigures,
    labels: Mapping[str, str],
    *,
    name: str = "quality-over-steps",
    metric: str = "validity",
    quality: str = "valid paraphrases (share)",
    caption: str = "",
    lines: Sequence[str] = (),
) -> None:
    """Draw quality and repeated bigrams of arms against the number of decoding steps.

    Args:
        figures: Where runs are read and the figure is written.
        labels: Arms to show, and what to call them.
        name: Of the file.
        metric: Quality.
        quality: Its label, with the unit.
        caption: What is to be seen.
        lines: Arms whose decoder has one number of steps only; drawn as level lines.
    """
    shown = {arm: label for arm, label in labels.items() if figures.has(arm)}
    caption = caption or "Each point is the mean over test inputs and seeds, each bar spans the seeds."
    with figures.figure(name, caption, 1, 2, (9.6, 3.9)) as (figure, axes):
        for place, (arm, label) in enumerate(shown.items()):
            for axis, wanted in zip(axes[0], (metric, "repeated_bigrams"), strict=True):
                _draw(axis, figures.curve(arm, wanted), label, COLOURS[place % len(COLOURS)], level=arm in lines)
        for axis, title in zip(axes[0], (quality, "repeated bigrams (share)"), strict=True):
            axis.set_xscale("log", base=2)
            axis.set_xlabel("decoding steps M")
            axis.set_ylabel(title)
            axis.set_ylim(bottom=0)
            ticks = sorted(
                {m for arm in shown if arm not in lines for m in figures.curve(arm, metric)["steps"].to_list()}
            )
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)


def _draw(axis: Axes, curve: pl.DataFrame, label: str, colour: str, *, level: bool) -> None:
    points = curve.group_by("steps", maintain_order=True).agg(
        pl.col("value").mean().alias("mean"), pl.col("value").min().alias("low"), pl.col("value").max().alias("high")
    )
    steps, mean = points["steps"].to_numpy(), points["mean"].to_numpy()
    if level:
        axis.axhline(mean[0], color=colour, linestyle=":", label=label)
        return
    spread = [mean - points["low"].to_numpy(), points["high"].to_numpy() - mean]
    axis.errorbar(
        steps, mean, yerr=spread, color=colour, marker="o", markersize=4, capsize=2, linewidth=1.3, label=label
    )
