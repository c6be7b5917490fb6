"""What the figures of all studies share: one style, SVG with the same bytes every time, the caption inside the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from flows.studies.context import JudgeContext

# Text stays text, and nothing in a file depends on the moment or on a random identifier.
STYLE = {
    "svg.hashsalt": "tessera",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.frameon": False,
}


class RunFigures:
    """Draws SVG figures from the runs of a judge stage, each with a caption that a stranger understands.

    Args:
        stage: The judge stage.
    """

    def __init__(self, stage: JudgeContext) -> None:
        self.stage = stage
        self.directory = stage.output / "figures"
        self.directory.mkdir(parents=True, exist_ok=True)

    def has(self, *arms: str) -> bool:
        """Tell whether every one of these arms was evaluated."""
        return set(arms) <= {arm for arm, _ in self.stage.evaluations}

    def runs(self, arm: str) -> dict[int, Path]:
        """Return an arm's evaluation directories by seed."""
        return {seed: path for (name, seed), path in sorted(self.stage.evaluations.items()) if name == arm}

    def values(self, arm: str, metric: str) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the rows of one metric for each seed of an arm."""
        for seed, run in self.runs(arm).items():
            yield seed, pl.read_parquet(run / "metrics.parquet").filter(pl.col("metric") == metric)

    @contextmanager
    def figure(
        self, name: str, caption: str, rows: int, columns: int, size: tuple[float, float], **grid
    ) -> Iterator[tuple[Figure, np.ndarray]]:
        """Open a figure of `rows` by `columns` axes; it is written as `name`.svg when the block ends.

        Args:
            name: File name without its ending.
            caption: What is shown and what to see in it; the SVG carries it as its title.
            rows: Rows of axes.
            columns: Columns of axes.
            size: Width and height in inches.
            grid: Passed on to `Figure.subplots`.
        """
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasSVG(figure)
            yield figure, figure.subplots(rows, columns, squeeze=False, **grid)
            path = self.directory / f"{name}.svg"
            figure.savefig(path, format="svg", metadata={"Date": None, "Title": caption})
