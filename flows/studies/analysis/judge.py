"""Figures of token streams: how often types occur, how fast new ones appear, and how counts begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from components.analysis.benford import BENFORD
from flows.studies.analysis.statistics import GROWTH_FILE, RANKS_FILE
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures


@dataclass(frozen=True)
class Shown:
    """One stream in the figures.

    Attributes:
        arm: Arm that measured it.
        corpus: Its corpus.
        name: Name in the legend.
        colour: Colour.
        style: Line style.
    """

    arm: str
    corpus: str
    name: str
    colour: str
    style: str = "-"


STREAMS = (
    Shown("visual_vq", "cifar10", "CIFAR-10, VQ 4 x 4", "#1b6ca8"),
    Shown("visual_vq_f8", "cifar10", "CIFAR-10, VQ 8 x 8", "#6fa8d6"),
    Shown("visual_kmeans", "cifar10", "CIFAR-10, k-means", "#3a7d44"),
    Shown("text_wordpiece", "wikitext2", "WikiText-2", "#c8553d"),
    Shown("text_wordpiece", "multi30k-en", "Multi30k English", "#e0932f"),
    Shown("text_wordpiece", "multi30k-de", "Multi30k German", "#b5892b", ":"),
    Shown("text_wordpiece", "multi30k-fr", "Multi30k French", "#8a5a9e", ":"),
    Shown("random_stream", "zipf", "independent, Zipf", "#8a8a8a", "--"),
    Shown("random_stream", "uniform", "independent, uniform", "#bbbbbb", "--"),
)


def derive(stage: JudgeContext) -> None:
    """Draw the streams of a paper's arms."""
    figures = StreamFigures(stage)
    figures.ranks()
    figures.growth()
    figures.leading_digits()


class StreamFigures(RunFigures):
    """Figures of token streams; curves are those of the first seed, which the others lie on."""

    def shown(self) -> list[Shown]:
        """Return the streams of STREAMS that this run measured."""
        found = []
        for stream in STREAMS:
            if self.has(stream.arm) and len(self._points(stream, RANKS_FILE, 1)):
                found.append(stream)
        return found

    def ranks(self) -> None:
        """Draw shares of n-grams against their rank."""
        caption = (
            "Share of an n-gram among all n-grams against its rank, both logarithmic, in streams of equal length and "
            "vocabulary. Left to right: single tokens to runs of four. Single image tokens are nearly equally "
            "frequent and fall off only at the end, those of text fall all along; longer runs of both come close to "
            "a line, that of images lower, because most of their runs occur once."
        )
        orders = sorted(self._orders())
        with self.figure("ranks", caption, 1, len(orders), (2.6 * len(orders), 3.1), sharey=True) as (_, axes):
            for axis, n in zip(axes[0], orders, strict=True):
                for stream in self.shown():
                    points = self._points(stream, RANKS_FILE, n)
                    axis.plot(points["rank"], points["share"], stream.style, color=stream.colour, label=stream.name)
                axis.set_xscale("log")
                axis.set_yscale("log")
                axis.set_xlabel("rank")
                axis.set_title("single tokens" if n == 1 else f"runs of {n} tokens", fontsize=9)
            axes[0][0].set_ylabel("share of all n-grams")
            axes[0][0].legend(fontsize=6)

    def growth(self) -> None:
        """Draw how many types were seen against the tokens read."""
        caption = (
            "Vocabulary growth, averaged over random orders of the documents. Left, the share of the types that "
            "occur at all seen after so many tokens: nearly every image token appears within a few dozen images, "
            "text goes on adding types. Right, distinct pairs of neighbouring tokens, both axes logarithmic: the "
            "steeper the curve, the faster new pairs appear."
        )
        with self.figure("growth", caption, 1, 2, (7.4, 3.3)) as (_, axes):
            single, pairs = axes[0]
            for stream in self.shown():
                points = self._points(stream, GROWTH_FILE, 1)
                shares = points["types"] / points["types"].max()
                single.plot(points["tokens"], shares, stream.style, color=stream.colour, label=stream.name)
                points = self._points(stream, GROWTH_FILE, 2)
                pairs.plot(points["tokens"], points["types"], stream.style, color=stream.colour)
            for axis in (single, pairs):
                axis.set_xscale("log")
                axis.set_xlabel("tokens read")
            single.set_ylabel("share of the live types seen")
            single.legend(fontsize=6)
            pairs.set_yscale("log")
            pairs.set_ylabel("distinct pairs seen")

    def leading_digits(self) -> None:
        """Draw the leading digits of counts beside Benford's law."""
        caption = (
            "Leading decimal digits of the counts of single tokens (left) and of pairs (right); bars are Benford's "
            "law, log10(1 + 1/d). Counts that spread over several orders of magnitude follow it. Those of image "
            "tokens lie close together, so their leading digits pile up; most pairs occur once or twice, in every "
            "stream."
        )
        with self.figure("benford", caption, 1, 2, (7.4, 3.1), sharey=True) as (_, axes):
            digits = np.arange(1, 10)
            for axis, n in zip(axes[0], (1, 2), strict=True):
                axis.bar(digits, BENFORD, color="#e4e4e4", label="Benford's law")
                for stream in self.shown():
                    shares = [self._digit(stream, n, digit) for digit in digits]
                    axis.plot(
                        digits, shares, stream.style, marker="o", markersize=2.5, color=stream.colour, label=stream.name
                    )
                axis.set_xticks(digits)
                axis.set_xlabel("leading digit of a count")
                axis.set_title("single tokens" if n == 1 else "pairs", fontsize=9)
            axes[0][0].set_ylabel("share of types")
            axes[0][1].legend(fontsize=6)

    def _orders(self) -> set[int]:
        return {n for run in self.stage.evaluations.values() for n in pl.read_parquet(run / RANKS_FILE)["n"].unique()}

    def _points(self, stream: Shown, file: str, n: int) -> pl.DataFrame:
        run = next(iter(self.runs(stream.arm).values()))
        return pl.read_parquet(run / file).filter((pl.col("corpus") == stream.corpus) & (pl.col("n") == n))

    def _digit(self, stream: Shown, n: int, digit: int) -> float:
        at = f"corpus={stream.corpus},digit={digit},n={n}"
        rows = [frame.filter(pl.col("at") == at)["value"] for _, frame in self.values(stream.arm, "digit_share")]
        return float(np.mean([row.item() for row in rows]))
