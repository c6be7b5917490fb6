"""The figures of PiToMe on what is lost for what is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components.metrics.tables import condition
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

METHOD, PARITY, WHOLE = "pitome", "tome", "full"
LINES = {
    "pitome": ("PiToMe", "#1b6ca8", "o-"),
    "tome": ("ToMe", "#c8553d", "s-"),
    "random_merge": ("random pairs", "#8a8a8a", "v-"),
    "no_protect": ("no protection", "#d9a441", "^--"),
    "random_split": ("random split", "#8a6fb0", "D--"),
    "tofu": ("ToFu", "#3a7d44", "s:"),
    "prune_late": ("ToMe, late tokens dropped", "#9cc59a", "s:"),
    "attention_energy": ("CLS attention as energy", "#5bb5c5", "x:"),
}
SETTINGS = {
    "pitome": "as in the code, margin 0.9",
    "margin_75": "margin 0.75",
    "margin_95": "margin 0.95",
    "energy_paper": "energy of the equation",
    "energy_kernel": "settings for text",
    "attention_energy": "CLS attention as energy",
    "random_split": "random split",
    "no_protect": "no protection",
    "tome": "ToMe",
}
TASKS = {"classification": "CIFAR-10, 64 tokens", "retrieval": "captions of scenes, 144 tokens"}


class Figures(RunFigures):
    """Draws accuracy against operations, and what the method's settings change."""

    def __init__(self, stage: JudgeContext) -> None:
        super().__init__(stage)
        self._tables: dict[Path, pl.DataFrame] = {}

    def rows(self, arm: str, seed: int, metric: str) -> pl.DataFrame:
        """Return condition, value and test item of a metric in one run."""
        run = self.stage.evaluations[arm, seed]
        if run not in self._tables:
            self._tables[run] = pl.read_parquet(run / "metrics.parquet", columns=["metric", "at", "sample", "value"])
        return self._tables[run].filter(pl.col("metric") == metric).drop("metric")

    def means(self, arm: str, metric: str, **at: object) -> dict[float, np.ndarray]:
        """Return a metric's mean over items by keep ratio, one value per seed, where the rest of the condition fits."""
        found: dict[float, list[float]] = {}
        for seed in self.runs(arm):
            rows = self.rows(arm, seed, metric).group_by("at", maintain_order=True).agg(pl.col("value").mean())
            for text, value in rows.iter_rows():
                given = conditions(text)
                ratio = given.pop("ratio", None)
                if ratio is not None and given == {key: str(each) for key, each in at.items()}:
                    found.setdefault(float(ratio), []).append(value)
        return {ratio: np.array(values) for ratio, values in sorted(found.items())}

    def trade_off(self) -> None:
        """Draw accuracy against operations."""
        caption = (
            "Accuracy of trained networks whose tokens are merged behind every block's attention without retraining, "
            "against the operations counted in a forward pass (those of the merging included). Left: images "
            "classified rightly; right: scenes whose own caption is the nearest of 1,000. Solid lines are what the "
            "claims compare, dotted ones run on fewer items. Black: the whole network. The paper's point: PiToMe "
            "(blue) lies above ToMe (red) at the same cost. Means over seeds, dots single seeds."
        )
        with self.figure("accuracy-by-operations", caption, 1, 2, (8.8, 4.0)) as (figure, axes):
            for axis, (task, title) in zip(axes[0], TASKS.items(), strict=True):
                for arm, (label, colour, style) in LINES.items():
                    if not self.has(arm):
                        continue
                    cost = [values.mean() for values in self.means(arm, "gflops", task=task).values()]
                    right = self.means(arm, "accuracy", task=task).values()
                    means = [values.mean() for values in right]
                    axis.plot(cost, means, style, color=colour, label=label, markersize=4, linewidth=1.2)
                    for x, values in zip(cost, right, strict=True):
                        axis.plot(np.full(len(values), x), values, ".", color=colour, markersize=3, alpha=0.5)
                if self.has(WHOLE):
                    cost = next(iter(self.means(WHOLE, "gflops", task=task).values())).mean()
                    whole = next(iter(self.means(WHOLE, "accuracy", task=task).values()))
                    axis.plot(np.full(len(whole), cost), whole, "k.", markersize=3)
                    axis.plot([cost], [whole.mean()], "k*", markersize=9, label="whole network")
                axis.set_xlabel("operations per picture (GFLOP)")
                axis.set_ylabel("right (%)")
                axis.set_title(title)
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

    def settings(self) -> None:
        """Draw the drop of the method's variants at the harshest ratio, all on the same items."""
        arms = [arm for arm in SETTINGS if self.has(arm)]
        # The method is also measured at ratios that no ablation has.
        ratio = min(set.intersection(*(set(self.means(arm, "accuracy", task="classification")) for arm in arms)))
        caption = (
            f"Accuracy lost at a keep ratio of {ratio:g} per block, by what orders the tokens and how they are "
            "divided: PiToMe with its variants and ablations, and ToMe, on the items that all of them ran on. Lower "
            "is better. Dots are seeds, bars their means."
        )
        with self.figure("settings", caption, 1, 2, (8.4, 3.2), sharey=True) as (_, axes):
            for axis, (task, title) in zip(axes[0], TASKS.items(), strict=True):
                at = condition({"task": task, "ratio": ratio})
                found = [[self.rows(arm, seed, "accuracy") for seed in sorted(self.runs(arm))] for arm in arms]
                found = [[rows.filter(pl.col("at") == at) for rows in each] for each in found]
                whole = [self.rows(WHOLE, seed, "accuracy").filter(pl.col("at") == at) for seed in self.runs(WHOLE)]
                fewest = min((each[0]["sample"] for each in found), key=len)
                for place, each in enumerate(found):
                    lost = [
                        _mean_of(own, fewest) - _mean_of(rows, fewest)
                        for own, rows in zip(whole, each, strict=True)
                    ]  # fmt: skip
                    colour = "#1b6ca8" if arms[place] == METHOD else "#c8553d" if arms[place] == PARITY else "#9cc5e3"
                    axis.barh(place, np.mean(lost), color=colour, height=0.6)
                    axis.plot(lost, [place] * len(lost), "k.", markersize=4)
                axis.set_yticks(range(len(arms)), [SETTINGS[arm] for arm in arms])
                axis.set_xlabel("accuracy lost (points)")
                axis.set_title(title)
            axes[0][0].invert_yaxis()

    def questions(self) -> None:
        """Draw answers against operations when tokens are merged inside the encoder of a vision-language model."""
        caption = (
            "A vision-language model whose encoder merges tokens behind the attention of each block, without "
            "retraining: questions answered rightly against operations of encoder and language model for one "
            "question. Left: general questions; right: reading the glyphs of a sign, which needs detail. Means over "
            "seeds, dots single seeds; star: no merging."
        )
        with self.figure("questions-by-operations", caption, 1, 2, (8.0, 3.8)) as (figure, axes):
            for axis, group in zip(axes[0], ("general", "read"), strict=True):
                for arm, (label, colour, style) in {**LINES, WHOLE: ("no merging", "black", "*")}.items():
                    if not self.has(arm):
                        continue
                    found = self.means(arm, "accuracy", questions=group)
                    cost = [values.mean() for values in self.means(arm, "gflops").values()][: len(found)]
                    means = [values.mean() for values in found.values()]
                    axis.plot(cost, means, style, color=colour, label=label, markersize=5)
                    for x, values in zip(cost, found.values(), strict=True):
                        axis.plot(np.full(len(values), x), values, ".", color=colour, markersize=3, alpha=0.6)
                axis.set_xlabel("operations per question (GFLOP)")
                axis.set_ylabel("right answers (%)")
                axis.set_title("general questions" if group == "general" else "reading the sign")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def conditions(text: str) -> dict[str, str]:
    """Read a condition back: `"k=8,split=test"` becomes `{"k": "8", "split": "test"}`."""
    return dict(part.split("=", 1) for part in text.split(",")) if text else {}


def _mean_of(rows: pl.DataFrame, items: pl.Series) -> float:
    return rows.filter(pl.col("sample").is_in(items.implode()))["value"].mean()
