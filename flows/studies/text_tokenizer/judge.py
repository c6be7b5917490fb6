"""Figures of the text-tokenizer study."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes

from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e", "#8a8a8a", "#b5892b")


def derive(stage: JudgeContext) -> None:
    """Draw what the dictionaries of each size cost and give."""
    TextFigures(stage).sizes(sorted({arm for arm, _ in stage.evaluations}))


class TextFigures(RunFigures):
    """Figures of dictionaries of a real text."""

    def sizes(self, arms: list[str]) -> None:
        """Draw unigram loss and tokens per character against vocabulary size."""
        caption = (
            "Held-out text in tokens of dictionaries of growing size: left, the loss of the best model of independent "
            "tokens, fitted to one half of the test text and measured on the other; right, the tokens that a character "
            "takes. A larger dictionary leaves less for a model to learn, and makes the text shorter."
        )
        measured = (
            ("nats_per_character", "unigram loss (nats per character)"),
            ("tokens_per_character", "tokens per character"),
        )
        with self.figure("sizes", caption, 1, 2, (7.4, 3.2)) as (_, axes):
            for axis, (metric, label) in zip(axes[0], measured, strict=True):
                for arm, colour in zip(arms, COLOURS, strict=False):
                    self.line(axis, arm, metric, colour, arm.removeprefix("text_"))
                axis.set_xscale("log", base=2)
                axis.set_xlabel("tokens in the dictionary")
                axis.set_ylabel(label)
            axes[0][0].legend()

    def line(
        self, axis: Axes, arm: str, metric: str, colour: str, label: str, at: dict[str, str] | None = None, **style
    ) -> None:
        """Draw a metric against `vocabulary`: thin lines for seeds, a thick one for their mean.

        Args:
            axis: Where to draw.
            arm: Arm.
            metric: Metric that the arm has at {vocabulary: ...} and at what `at` adds.
            colour: Colour.
            label: Name in the legend.
            at: Further keys of the condition.
            style: Passed on to the thick line.
        """
        prefix = "".join(f"{key}={value}," for key, value in sorted((at or {}).items()))
        frames = []
        for seed, frame in self.values(arm, metric):
            rows = frame.filter(pl.col("at").str.starts_with(f"{prefix}vocabulary="))
            size = pl.col("at").str.strip_prefix(f"{prefix}vocabulary=").cast(pl.Int64).alias("size")
            frames.append(rows.select(size, "value", pl.lit(seed).alias("seed")).sort("size"))
        points = pl.concat(frames)
        if len(frames) > 1:
            for frame in frames:
                axis.plot(frame["size"], frame["value"], color=colour, alpha=0.3, linewidth=0.7)
        means = points.group_by("size").agg(pl.col("value").mean()).sort("size")
        axis.plot(means["size"], means["value"], marker="o", markersize=3, color=colour, label=label, **style)
