"""Figures of the image tokenizer study: what was decoded, and how good it is at every length."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from PIL import Image

from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

_PALETTE = ("#1b6ca8", "#c8553d", "#4c9f70", "#8a6fb0", "#8a8a8a", "#d9a441", "#222222")


def derive(stage: JudgeContext) -> None:
    """Draw quality against length for every arm."""
    figures = Figures(stage)
    figures.quality(list(dict.fromkeys(arm for arm, _ in stage.evaluations)))


class Figures(RunFigures):
    """Figures that every paper of the study can draw.

    Args:
        stage: The judge stage.
        labels: What an arm is called in figures, where not by its name.
    """

    def __init__(self, stage: JudgeContext, labels: Mapping[str, str] | None = None) -> None:
        super().__init__(stage)
        self._labels = labels or {}

    def label(self, arm: str) -> str:
        """Return what an arm is called in figures."""
        return self._labels.get(arm, arm.replace("_", " "))

    def series(self, arm: str, metric: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of a condition's key (P,) and the metric's mean over items at each, by seed (seeds, P)."""
        seeds = []
        for _, frame in self.values(arm, metric):
            found = frame.with_columns(pl.col("at").str.extract(rf"{key}=(\d+)").cast(pl.Int64).alias("key"))
            seeds.append(found.group_by("key").agg(pl.col("value").mean()).sort("key"))
        if not seeds or not len(seeds[0]):
            return np.zeros(0), np.zeros((0, 0))
        return seeds[0]["key"].to_numpy(), np.stack([frame["value"].to_numpy() for frame in seeds])

    def lines(self, axis: Axes, arms: Sequence[str], metric: str, key: str, *, markers: str = "o") -> None:
        """Draw a metric against a key: the mean over seeds as a line, every seed as a thin one."""
        for position, arm in enumerate(arms):
            keys, values = self.series(arm, metric, key)
            if not len(keys):
                continue
            colour = _PALETTE[position % len(_PALETTE)]
            if len(values) > 1:
                axis.plot(keys, values.T, color=colour, linewidth=0.6, alpha=0.45)
            axis.plot(keys, values.mean(0), marker=markers, markersize=3.5, color=colour, label=self.label(arm))

    def quality(self, arms: Sequence[str], bits_per_token: float | None = None) -> None:
        """Draw PSNR and Frechet distance against the number of tokens, with bytes on a second axis."""
        caption = (
            "Reconstruction quality against the number of tokens that are decoded. Left: peak signal-to-noise ratio "
            "of the test images (higher is better). Right: Frechet distance between features of originals and "
            "reconstructions (lower is better). Lines are means over seeds, thin lines single seeds."
        )
        with self.figure("quality-by-length", caption, 1, 2, (8.2, 3.4)) as (figure, axes):
            for axis, metric, unit in zip(axes[0], ("psnr", "fd_cifar"), ("PSNR (dB)", "fd-cifar"), strict=True):
                self.lines(axis, arms, metric, "k")
                axis.set_xscale("log", base=2)
                lengths = self.series(arms[0], metric, "k")[0]
                axis.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
                axis.set_xlabel("tokens decoded")
                axis.set_ylabel(unit)
                if bits_per_token and len(lengths):
                    # The same ticks above, in bytes: a token is a fixed number of bits.
                    upper = axis.twiny()
                    upper.set_xscale("log", base=2)
                    upper.set_xlim(axis.get_xlim())
                    upper.set_xticks(lengths, [f"{length * bits_per_token / 8:.3g}" for length in lengths])
                    upper.set_xlabel("bytes per image")
                    upper.spines["top"].set_visible(True)
                    upper.minorticks_off()
                axis.minorticks_off()
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(arms), 3))

    def samples(self, arm: str, kind: str) -> pl.DataFrame:
        """Return the images that an arm's first seed kept of a kind: item, at, image (PNG)."""
        return pl.read_parquet(next(iter(self.runs(arm).values())) / "samples.parquet").filter(pl.col("kind") == kind)


def show(axis: Axes, file: bytes | None) -> None:
    """Show a PNG file pixel by pixel, without axes; nothing where there is none."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if file is not None:
        axis.imshow(np.asarray(Image.open(io.BytesIO(file))), interpolation="none")
