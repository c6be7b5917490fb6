"""Figures of the survey's image codec: rates and quality, collapse, parts of codes, pictures, gradients, priors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from components.metrics.tables import condition
from flows.studies.context import JudgeContext
from flows.studies.image_tokenizer.discrete_tokenization_survey.families import COLOURS, FAMILIES, family
from flows.studies.image_tokenizer.judge import Figures, show

_LONG = {"vq_long": "vq", "vq_restart_long": "vq restart", "fsq_long": "fsq", "bsq_long": "bsq"}
_BY_SIZE = {"vq_8": 256, "vq_1024": 1024, "vq": 4096}
_PARTIAL = {
    "rvq_progressive": "rvq, random number of books in training",
    "rvq_24": "rvq, always four books",
    "pq_24": "pq, unknown parts replaced by their mean",
}
_SHOWN = (
    ("8 bits", ("vq_k256", "rvq_8", "pq_8", "additive_8", "fsq_8", "lfq_8", "bsq_8", "gumbel_8")),
    ("12 bits", ("vq", "vq_restart", "rvq", "pq", "additive", "fsq", "lfq", "bsq", "gumbel")),
    ("24 bits", ("rvq_24", "pq_24", "additive_24", "fsq_24", "lfq_24", "bsq_24")),
    ("", ("continuous", "mean_colour")),
)
_IMAGES, _TICKS = 4, (4, 6, 8, 12, 16, 24, 32, 64)


class SurveyFigures(Figures):
    """Figures of the image arms."""

    def __init__(self, stage: JudgeContext) -> None:
        super().__init__(stage)
        self._tables: dict[Path, pl.DataFrame] = {}

    def values(self, arm: str, metric: str) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the rows of one metric for each seed of an arm; a run's table is read once for all figures."""
        for seed, run in self.runs(arm).items():
            if run not in self._tables:
                self._tables[run] = pl.read_parquet(run / "metrics.parquet")
            yield seed, self._tables[run].filter(pl.col("metric") == metric)

    def means(self, arm: str, metric: str, at: str = "") -> np.ndarray:
        """Return a metric's mean over items for every seed of an arm that measured it, (seeds,)."""
        found = [frame.filter(pl.col("at") == at)["value"] for _, frame in self.values(arm, metric)]
        return np.array([float(values.mean()) for values in found if len(values)])

    def image_arms(self) -> list[str]:
        """Return the arms with codes that share the codec and its number of steps, each once."""
        arms = dict.fromkeys(arm for arm, _ in self.stage.evaluations)
        kept = [arm for arm in arms if family(arm) and not arm.startswith("prior_") and not arm.endswith("_long")]
        return sorted(kept, key=lambda arm: (FAMILIES.index(family(arm)), kept.index(arm)))

    def rate_distortion(self) -> None:
        caption = (
            "Quality of reconstructed CIFAR-10 test images against the bits of a cell of 4 x 4 pixels (64 cells an "
            "image), for every quantizer family in the same codec after the same 600 steps. Left: bits on paper. "
            "Middle: bits of a range-coded stream whose probabilities are learned on the way, so a codebook that "
            "collapsed moves to the left. Right: Frechet distance of classifier features against the same (lower is "
            "better). Points are means over seeds, bars reach from the lowest to the highest seed. Lines: the codec "
            "without a quantizer, and the mean colour of every cell."
        )
        panels = (
            ("nominal_bits", "psnr", "nominal bits of a cell", "PSNR (dB)"),
            ("real_bits", "psnr", "range-coded bits of a cell", "PSNR (dB)"),
            ("real_bits", "fd_cifar", "range-coded bits of a cell", "fd-cifar"),
        )
        with self.figure("rate-distortion", caption, 1, 3, (11.5, 4.0)) as (figure, axes):
            for axis, (rate, metric, x, y) in zip(axes[0], panels, strict=True):
                for arm in self.image_arms():
                    self._point(axis, arm, rate, metric)
                self._floors(axis, metric)
                axis.set_xscale("log", base=2)
                axis.set_xticks(_TICKS, [str(bits) for bits in _TICKS])
                axis.minorticks_off()
                axis.set_xlabel(x)
                axis.set_ylabel(y)
            handles = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
            figure.legend(handles.values(), handles, loc="outside lower center", ncols=6)

    def _point(self, axis: Axes, arm: str, rate: str, metric: str) -> None:
        x, y = self.means(arm, rate), self.means(arm, metric)
        if not len(x) or not len(y):
            return
        name = family(arm)
        colour, marker = COLOURS[name]
        spread = np.array([[y.mean() - y.min()], [y.max() - y.mean()]])
        axis.errorbar(
            x.mean(), y.mean(), spread, color=colour, marker=marker, markersize=5.5, linewidth=1, alpha=0.85,
            linestyle="none", label=name,
        )  # fmt: skip

    def _floors(self, axis: Axes, metric: str) -> None:
        for arm, style in (("continuous", "--"), ("mean_colour", ":")):
            values = self.means(arm, metric) if self.has(arm) else ()
            if len(values):
                axis.axhline(np.mean(values), color="#555555", linewidth=0.9, linestyle=style)
                axis.annotate(
                    self.label(arm), (0.02, np.mean(values)), xycoords=("axes fraction", "data"), fontsize=7,
                    ha="left", va="bottom", color="#555555",
                )  # fmt: skip

    def collapse(self) -> None:
        caption = (
            "How much of a codebook is in use on test images. Left: after 250, 1,000 and 4,000 steps at "
            "constant learning rate, with 4,096 codes: one learned codebook without and with k-means start and "
            "restarts, levels (fsq) and signs on the sphere (bsq). Right: one learned codebook without restarts after "
            "600 steps, by its size. Thin lines and points are single seeds."
        )
        with self.figure("collapse", caption, 1, 2, (8.6, 3.4)) as (_, axes):
            left, right = axes[0]
            for arm, label in _LONG.items():
                if not self.has(arm):
                    continue
                shares = sorted(self._conditions(arm, "codebook_usage", "progress"))
                curves = np.stack(
                    [self.means(arm, "codebook_usage", condition({"progress": share})) for share in shares], 1
                )
                steps = np.array(shares) * self._steps(arm)
                colour, marker = COLOURS[family(arm)]
                style = "--" if "restart" in arm else "-"
                left.plot(steps, 100 * curves.T, color=colour, linewidth=0.5, alpha=0.5)
                left.plot(steps, 100 * curves.mean(0), style, marker=marker, color=colour, label=label)
                left.set_xscale("log")
                left.set_xticks(steps, [f"{step:,.0f}" for step in steps])
                left.minorticks_off()
            left.set_yscale("log")
            left.set_xlabel("steps")
            left.set_ylabel("codes in use (%)")
            left.legend(*left.get_legend_handles_labels(), fontsize=7)
            sizes = {arm: size for arm, size in _BY_SIZE.items() if self.has(arm)}
            values = [self.means(arm, "codebook_usage") for arm in sizes]
            for size, value in zip(sizes.values(), values, strict=True):
                right.plot([size] * len(value), 100 * value, ".", color=COLOURS["vq"][0], alpha=0.6)
            right.plot(list(sizes.values()), [100 * value.mean() for value in values], "-o", color=COLOURS["vq"][0])
            right.set_xscale("log", base=2)
            right.set_xticks(list(sizes.values()), [f"{size:,}" for size in sizes.values()])
            right.minorticks_off()
            right.set_xlabel("codes in the codebook")
            right.set_ylabel("codes in use (%)")
            right.set_ylim(bottom=0)

    def progressive(self) -> None:
        caption = (
            "PSNR of test images from the first 1 to 4 of four codebooks of 64 codes (6 bits of a cell each). Residual "
            "codebooks refine a sum, so that a part of the code is a coarser code, best where training drew how many "
            "of them are used; a product names parts of the vector, and what it does not name can only be replaced by "
            "its mean. Means over seeds, thin lines single seeds."
        )
        with self.figure("progressive", caption, 1, 1, (5.2, 3.6)) as (figure, axes):
            axis = axes[0][0]
            for arm, label in _PARTIAL.items():
                keys, values = self.series(arm, "partial_psnr", "codebooks") if self.has(arm) else ((), ())
                if not len(keys):
                    continue
                colour, marker = COLOURS[family(arm)]
                style = "--" if arm == "rvq_24" else "-"
                axis.plot(keys, values.T, color=colour, linewidth=0.5, alpha=0.5)
                axis.plot(keys, values.mean(0), style, marker=marker, color=colour, label=label)
                axis.set_xticks(keys)
            axis.set_xlabel("codebooks decoded")
            axis.set_ylabel("PSNR (dB)")
            figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=8)

    def reconstructions(self) -> None:
        caption = (
            "The same test images through every quantizer family, by bits of a cell of 4 x 4 pixels, with PSNR in dB "
            "over all test images; beside them the codec without a quantizer and the mean colour of every cell. First "
            "seed."
        )
        columns = [(title, [arm for arm in arms if self.has(arm)]) for title, arms in _SHOWN]
        rows = 1 + max(len(arms) for _, arms in columns)
        width = _IMAGES + 1
        with self.figure(
            "reconstructions", caption, rows, width * len(columns), (0.52 * width * len(columns), 0.62 * rows)
        ) as (_, axes):
            for axis in axes.flat:
                show(axis, None)
            for block, (title, arms) in enumerate(columns):
                first = block * width
                for row, arm in enumerate(arms, start=1):
                    self._row(axes[row][first : first + width], arm, 1)
                if arms:
                    self._row(axes[0][first : first + width], arms[0], 0)
                axes[0][first + 1].set_title(title, fontsize=8, loc="left")

    def _row(self, axes: Sequence[Axes], arm: str, at: int) -> None:
        frame = self.samples(arm, "image").filter(pl.col("at") == at)
        for axis, file in zip(axes[1:], frame["image"].to_list(), strict=False):
            show(axis, file)
        text = f"{self.label(arm)}\n{self.means(arm, 'psnr').mean():.1f}" if at else "original"
        axes[0].text(1, 0.5, text, transform=axes[0].transAxes, ha="right", va="center", fontsize=6)

    def training(self) -> None:
        caption = (
            "Training through a quantizer. Left: distance from 1 of the share of the slope that the latents' gradient "
            "promises and that a step of a tenth of their length really finds (0: a true gradient; 1: the step changes "
            "nothing). Middle: how unsteady the length of the gradient is that arrives at the encoder (deviation over "
            "mean of the second half of the training). Right: standard deviation of PSNR between seeds."
        )
        arms = [arm for arm in (*self.image_arms(), "continuous") if len(self.means(arm, "codec_gradient_bias"))]
        with self.figure("training", caption, 1, 3, (10.5, 0.16 * len(arms) + 1.2), sharey=True) as (_, axes):
            heights = np.arange(len(arms))[::-1]
            for axis, metric, unit in zip(
                axes[0],
                ("codec_gradient_bias", "encoder_gradient_variation", ""),
                ("bias of the gradient", "variation of the encoder's gradient", "PSNR between seeds (dB)"),
                strict=True,
            ):
                for height, arm in zip(heights, arms, strict=True):
                    psnr = self.means(arm, "psnr")
                    spread = psnr.std(ddof=1) if len(psnr) > 1 else np.nan
                    value = self.means(arm, metric).mean() if metric else spread
                    axis.barh(height, value, color=COLOURS[family(arm) or "none"][0])
                axis.set_xlabel(unit)
            axes[0][0].set_yticks(heights, [self.label(arm) for arm in arms], fontsize=6)

    def priors(self) -> None:
        caption = (
            "Bits of an image's tokens under a causal model of the tokens of training images (filled), and under their "
            "plain frequencies (open), against PSNR. Both numbers together are what a learned prior makes of an arm: "
            "tokens that are easy to predict cost few bits, tokens that say much give a better image. One seed."
        )
        arms = [arm for arm, _ in self.stage.evaluations if len(self.means(arm, "prior_bits"))]
        with self.figure("priors", caption, 1, 1, (5.6, 3.8)) as (_, axes):
            axis = axes[0][0]
            for arm in dict.fromkeys(arms):
                colour, marker = COLOURS[family(arm)]
                y = self.means(arm, "psnr").mean()
                x = [self.means(arm, "unigram_bits").mean(), self.means(arm, "prior_bits").mean()]
                axis.plot(x, [y, y], color=colour, linewidth=0.8)
                axis.plot(x[0], y, marker=marker, color=colour, markerfacecolor="none")
                axis.plot(x[1], y, marker=marker, color=colour)
                label = self.label(arm.removeprefix("prior_"))
                axis.annotate(label, (x[1], y), textcoords="offset points", xytext=(0, 5), fontsize=7)
            axis.set_xlabel("bits per image")
            axis.set_ylabel("PSNR (dB)")

    def _conditions(self, arm: str, metric: str, key: str) -> set[float]:
        _, frame = next(iter(self.values(arm, metric)))
        found = frame["at"].str.extract(rf"{key}=([\d.]+)").drop_nulls()
        return {float(value) for value in found}

    def _steps(self, arm: str) -> int:
        run = next(path for (name, _), path in self.stage.trainings.items() if name == arm)
        return int(pl.read_parquet(run / "curves.parquet")["step"].max())
