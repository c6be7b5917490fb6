"""Figures of answers that are numbers: how wrong they are, and where the probability of their digits lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

DIGITS_FILE = "digits.parquet"
"""First digits of answers as an evaluation keeps them: item, category, label and q, the probabilities of 0 to 9."""

_PALETTE = (
    "#8a8a8a", "#1b6ca8", "#c8553d", "#d9a441", "#4c9f70", "#8a6fb0", "#222222", "#c9c9c9", "#9c6b4e", "#6fb0a8",
)  # fmt: skip


class AnswerFigures(RunFigures):
    """Figures of arms that answer with numbers.

    Args:
        stage: The judge stage.
        labels: What an arm is called; arms without a label are not drawn.
    """

    def __init__(self, stage: JudgeContext, labels: Mapping[str, str]) -> None:
        super().__init__(stage)
        self._labels = labels
        self._colours = dict(zip(labels, _PALETTE, strict=False))

    def _arms(self) -> list[str]:
        return [arm for arm in self._labels if self.has(arm)]

    def _seeds(self, arm: str, metric: str, at: str) -> list[float]:
        """Return the mean over items of a metric for each seed of an arm."""
        found = [frame.filter(pl.col("at") == at)["value"] for _, frame in self.values(arm, metric)]
        return [values.mean() for values in found if len(values)]

    def errors(self, split: str, judged: Sequence[str]) -> None:
        """Draw the error of every arm in every category of a split, beside the blind error."""
        caption = (
            "Error of greedy answers to held-out questions in units of the error of always answering the training "
            "median (dashed: 1), an answer counting at most twice that, by category. Bars are means over seeds, dots "
            f"the seeds. Judged categories: {', '.join(judged) or 'none, the gate is closed'}. The others are nearly "
            "solved, so that no loss can help."
        )
        arms = [arm for arm in self._arms() if arm != "blind"]
        categories = [text.split("=")[1].split(",")[0] for text in next(self.values("ce", "mae"))[1]["at"]]
        categories = list(dict.fromkeys(categories))
        with self.figure("errors", caption, 1, 1, (7.2, 3.2)) as (_, axes):
            axis, width = axes[0][0], 0.8 / len(arms)
            for place, arm in enumerate(arms):
                seeds = [self._seeds(arm, "nerr", f"category={name},split={split}") for name in categories]
                x = np.arange(len(categories)) + (place - (len(arms) - 1) / 2) * width
                height = [np.mean(values) for values in seeds]
                axis.bar(x, height, width * 0.9, color=self._colours[arm], label=self._labels[arm])
                axis.scatter(np.repeat(x, [len(values) for values in seeds]), np.concatenate(seeds), 6, "k", zorder=3)
            axis.axhline(1, color="#222222", linestyle="--", linewidth=0.8)
            axis.set_xticks(range(len(categories)), [name.replace("_", " ") for name in categories])
            axis.set_ylabel("error / blind error")
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))

    def digits(self, split: str, categories: Sequence[str]) -> None:
        """Draw how far predicted digits are from the right ones, by place, for some categories of a split."""
        caption = (
            "Digits of the answers to held-out questions, given the right digits before them, by decimal place: "
            "distance of the expected digit from the right one (left), and the further distance that probability on "
            "both sides of the right digit hides from it (right). The squared form sees the left only."
        )
        arms = [arm for arm in self._arms() if any(len(frame) for _, frame in self.values(arm, "digit_error"))]
        rows = len(categories)
        with self.figure("digits", caption, rows, 2, (7.2, 0.6 + 2 * rows), sharex="row") as (figure, axes):
            for row, category in zip(axes, categories, strict=True):
                for axis, metric in zip(row, ("digit_error", "digit_spread"), strict=True):
                    for arm in arms:
                        at = {place: f"category={category},place={place},split={split}" for place in range(3)}
                        seeds = {place: self._seeds(arm, metric, text) for place, text in at.items()}
                        found = {place: np.mean(values) for place, values in seeds.items() if values}
                        line = {"color": self._colours[arm], "label": self._labels[arm]}
                        axis.plot(list(found), list(found.values()), "o-", markersize=4, **line)
                    axis.set_xticks(range(3), ["ones", "tens", "hundreds"])
                    axis.set_ylabel(f"{category.replace('_', ' ')}: {metric.removeprefix('digit_')} (digits)")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)

    def false_minimum(self, shown: str, others: Sequence[str]) -> None:
        """Draw digits whose mean is right and whose probability is not, as `shown` and other arms predict them."""
        arms = [arm for arm in (shown, *others) if self.has(arm)]
        caption = (
            "First digits of held-out answers for which the squared form is nearly satisfied, because the mean of the "
            "predicted digits (dotted) is close to the right digit (shaded), while their probability lies on both "
            "sides of it; the same digits as the other arms predict them. The three with the greatest hidden distance."
        )
        seed = min(self.runs(shown))
        frames = {arm: pl.read_parquet(self.runs(arm)[seed] / DIGITS_FILE) for arm in arms}
        q, label = frames[shown]["q"].to_numpy().astype(float), frames[shown]["label"].to_numpy()
        digit = np.arange(10)
        squared = (q @ digit - label) ** 2
        hidden = np.where(squared < 0.25, (q * np.abs(digit - label[:, None])).sum(1), 0)
        chosen = np.argsort(-hidden, kind="stable")[:3]
        with self.figure("false-minimum", caption, len(arms), 3, (6.6, 1.6 * len(arms)), sharex=True, sharey=True) as (
            _,
            axes,
        ):
            for row, arm in zip(axes, arms, strict=True):
                q = frames[arm]["q"].to_numpy().astype(float)
                for axis, index in zip(row, chosen, strict=False):
                    axis.axvspan(label[index] - 0.5, label[index] + 0.5, color="#f0e3b2")
                    axis.bar(digit, q[index], color=self._colours[arm])
                    axis.axvline(q[index] @ digit, color="#222222", linestyle=":")
                    axis.set_ylim(0, 1)
                    axis.set_xticks(digit[::3])
                    if arm == shown:
                        axis.set_title(f"right digit: {label[index]}", fontsize=8)
                row[0].set_ylabel(f"{self._labels[arm]}\nprobability", fontsize=7)
            for axis in axes[-1]:
                axis.set_xlabel("digit")

    def regression(self) -> None:
        """Draw the root mean squared error of every arm."""
        caption = (
            "Root mean squared error of the predicted target on test rows, targets from 0 to 99: a token head read as "
            "an expected number, trained with cross entropy alone or with the number token loss, beside a regression "
            "head, linear ridge regression and always the training mean (blind). Bars are means over seeds, dots seeds."
        )
        arms = self._arms()
        with self.figure("regression", caption, 1, 1, (5.2, 3.0)) as (_, axes):
            axis = axes[0][0]
            for place, arm in enumerate(arms):
                seeds = self._seeds(arm, "rmse", "")
                axis.bar(place, np.mean(seeds), color=self._colours[arm])
                axis.scatter([place] * len(seeds), seeds, 8, "k", zorder=3)
            axis.set_xticks(range(len(arms)), [self._labels[arm] for arm in arms], fontsize=8)
            axis.set_ylabel("RMSE (target units)")
