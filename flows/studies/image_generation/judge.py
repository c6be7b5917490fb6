"""Figures of the image generation study: what was drawn, and how it compares with real images."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from PIL import Image

from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

PALETTE = ("#1b6ca8", "#c8553d", "#4c9f70", "#8a6fb0", "#d9a441", "#8a8a8a", "#222222")
_COLUMNS = 10  # images of one row of a grid: one of each class, where there are ten
_GAP = 2  # white pixels between images


def derive(stage: JudgeContext) -> None:
    """Draw the images of every generator, and their scores."""
    figures = Figures(stage)
    arms = [arm for arm in dict.fromkeys(arm for arm, _ in stage.evaluations) if figures.mean(arm, "fd_cifar")]
    figures.grids(arms)
    figures.scores(arms)


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

    def by_seed(self, arm: str, metric: str) -> dict[int, float]:
        """Return the mean over items of a metric without condition, by seed; empty where it was not measured."""
        found = {seed: frame["value"].mean() for seed, frame in self.values(arm, metric) if len(frame)}
        return {seed: float(value) for seed, value in found.items()}

    def mean(self, arm: str, metric: str) -> float | None:
        """Return the mean over seeds of a metric; None where it was not measured."""
        values = list(self.by_seed(arm, metric).values())
        return float(np.mean(values)) if values else None

    def images(self, arm: str, kind: str) -> list[np.ndarray]:
        """Return the images that an arm's first seed kept of a kind, uint8 (H, W, 3) each."""
        frame = pl.read_parquet(next(iter(self.runs(arm).values())) / "samples.parquet")
        files = frame.filter(pl.col("kind") == kind)["image"]
        return [np.asarray(Image.open(io.BytesIO(file))) for file in files]

    def grids(self, arms: Sequence[str]) -> None:
        """Draw the kept images of every arm as a grid, one column for each class."""
        caption = (
            "Images drawn from every generator, none selected: one column for each class, in the order of the data "
            "set (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck for CIFAR-10). In brackets the "
            "Frechet distance of the arm's samples to the test images, mean over seeds; lower is better."
        )
        columns = min(2, len(arms))
        rows = math.ceil(len(arms) / columns)
        sheets = {arm: montage(self.images(arm, "generated"), _COLUMNS) for arm in arms}
        height = max(sheet.shape[0] / sheet.shape[1] for sheet in sheets.values()) * 4.2 + 0.35
        with self.figure("samples", caption, rows, columns, (4.4 * columns, height * rows)) as (_, axes):
            for axis, arm in zip(axes.flat, arms, strict=False):
                show(axis, sheets[arm])
                axis.set_title(f"{self.label(arm)} ({self.mean(arm, 'fd_cifar'):.3g})", fontsize=8)
            for axis in axes.flat[len(arms) :]:
                axis.set_axis_off()

    def scores(self, arms: Sequence[str]) -> None:
        """Draw distance, class accuracy, precision and recall of every arm, one dot for each seed."""
        caption = (
            "Generated images against test images, in the features of a classifier that no training used. Dots are "
            "seeds, bars their means. Left: Frechet distance (lower is better); the dashed line is what as many real "
            "training images score. Then: share of images taken for the class they were drawn for; share of images "
            "that lie where real ones are (precision); share of real images that generated ones cover (recall)."
        )
        panels = {
            "fd_cifar": "fd-cifar",
            "class_accuracy": "class accuracy (share)",
            "precision": "precision (share)",
            "recall": "recall (share)",
        }
        places = np.arange(len(arms))[::-1]
        with self.figure("scores", caption, 1, 4, (9.6, 0.8 + 0.28 * len(arms)), sharey=True) as (_, axes):
            for axis, (metric, unit) in zip(axes[0], panels.items(), strict=True):
                for place, arm in zip(places, arms, strict=True):
                    values = list(self.by_seed(arm, metric).values())
                    axis.barh(place, np.mean(values), color=PALETTE[0], alpha=0.35, height=0.6)
                    axis.plot(values, [place] * len(values), "o", color=PALETTE[0], markersize=3)
                axis.set_xlabel(unit)
                axis.set_xlim(left=0)
            floor = [self.mean(arm, "fd_real") for arm in dict.fromkeys(arm for arm, _ in self.stage.evaluations)]
            for value in (value for value in floor if value is not None):
                axes[0][0].axvline(value, color="#222222", linestyle="--", linewidth=0.8)
            axes[0][0].set_yticks(places, [self.label(arm) for arm in arms])


def montage(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put equal images (H, W, 3) side by side, row by row, with white gaps."""
    height, width = images[0].shape[:2]
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + _GAP), place % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def show(axis, image: np.ndarray) -> None:
    """Show an image pixel by pixel, without axes."""
    axis.imshow(image, interpolation="none")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
