"""The figures of PiToMe."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

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
    """Draws what is lost for what is saved, what is merged, and what becomes of spectra."""

    def __init__(self, stage: JudgeContext) -> None:
        super().__init__(stage)
        self._tables: dict[Path, pl.DataFrame] = {}

    def rows(self, arm: str, seed: int, metric: str) -> pl.DataFrame:
        """Return condition, value and test item of a metric in one run."""
        run = self.stage.evaluations[arm, seed]
        if run not in self._tables:
            self._tables[run] = pl.read_parquet(run / "metrics.parquet", columns=["metric", "at", "sample", "value"])
        return self._tables[run].filter(pl.col("metric") == metric).drop("metric")

    def _means(self, arm: str, metric: str, **at: object) -> dict[float, np.ndarray]:
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
                    cost = [values.mean() for values in self._means(arm, "gflops", task=task).values()]
                    right = self._means(arm, "accuracy", task=task).values()
                    means = [values.mean() for values in right]
                    axis.plot(cost, means, style, color=colour, label=label, markersize=4, linewidth=1.2)
                    for x, values in zip(cost, right, strict=True):
                        axis.plot(np.full(len(values), x), values, ".", color=colour, markersize=3, alpha=0.5)
                if self.has(WHOLE):
                    cost = next(iter(self._means(WHOLE, "gflops", task=task).values())).mean()
                    whole = next(iter(self._means(WHOLE, "accuracy", task=task).values()))
                    axis.plot(np.full(len(whole), cost), whole, "k.", markersize=3)
                    axis.plot([cost], [whole.mean()], "k*", markersize=9, label="whole network")
                axis.set_xlabel("operations per picture (GFLOP)")
                axis.set_ylabel("right (%)")
                axis.set_title(title)
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

    def settings(self) -> None:
        """Draw the drop of the method's variants at the harshest ratio, all on the same items."""
        arms = [arm for arm in SETTINGS if self.has(arm)]
        ratio = min(self._means(METHOD, "accuracy", task="classification"))
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

    def merged(self) -> None:
        """Show which patches were merged, in photographs and in scenes."""
        arms = [arm for arm in (METHOD, PARITY, "no_protect") if self.has(arm)]
        frames = {arm: pl.read_parquet(next(iter(self.runs(arm).values())) / "samples.parquet") for arm in arms}
        ratio = frames[METHOD]["ratio"].min()
        caption = (
            f"How many patches share the token that each patch ends in, behind all blocks at a keep ratio of {ratio:g}"
            " (first seed): photographs of CIFAR-10 above, drawn scenes below. Yellow patches were left alone, dark "
            "ones ended in a large token. PiToMe protects what stands alone and merges inside large areas of one "
            "look; ToMe merges along the parity of places."
        )
        shown = [(task, row) for task in TASKS for row in sorted(frames[METHOD]["row"].unique())[:3]]
        with self.figure("merged-patches", caption, len(shown), 1 + len(arms), (6.4, 1.5 * len(shown))) as (_, axes):
            for line, (task, row) in zip(axes, shown, strict=True):
                own = (pl.col("task") == task) & (pl.col("row") == row) & (pl.col("ratio") == ratio)
                picture = np.asarray(Image.open(io.BytesIO(frames[METHOD].filter(own)["image"][0])))
                line[0].imshow(picture, interpolation="none")
                for axis, arm in zip(line[1:], arms, strict=True):
                    groups = np.array(frames[arm].filter(own)["groups"][0].to_list())
                    sizes = np.bincount(groups)[groups]
                    rows = round(len(groups) ** 0.5)
                    shades = axis.imshow(np.log2(sizes).reshape(rows, rows), cmap="viridis_r", vmin=0, vmax=6)
                for axis, title in zip(line, ["picture", *(LINES[arm][0] for arm in arms)], strict=True):
                    axis.set_xticks([])
                    axis.set_yticks([])
                    if row == shown[0][1] and task == shown[0][0]:
                        axis.set_title(title)
            bar = axes[0][0].figure.colorbar(shades, ax=axes, shrink=0.5, label="patches in the token")
            bar.set_ticks(range(0, 7), labels=[str(2**power) for power in range(7)])

    def blocks(self) -> None:
        """Draw the spectral distance of what each block merges, and how far the mean feature drifts."""
        caption = (
            "Real tokens instead of planted clusters. Left and middle: spectral distance, per token, between the "
            "graph of a block's keys and the same graph merged, by block, at a keep ratio of 0.8 (edges weigh by "
            "similarity). Right: 1 - cosine of the size-weighted mean over patch tokens and that of the whole "
            "network, by keep ratio. Lower is better. Means over seeds."
        )
        with self.figure("spectra-of-images", caption, 1, 3, (9.4, 3.4)) as (figure, axes):
            for axis, (task, title) in zip(axes[0], TASKS.items(), strict=False):
                for arm, (label, colour, style) in LINES.items():
                    layers, values = self._by_layer(arm, task)
                    if layers:
                        axis.plot(layers, values, style, color=colour, label=label, markersize=4)
                axis.set_xlabel("block")
                axis.set_ylabel("spectral distance per token")
                axis.set_title(title)
                axis.set_ylim(bottom=0)
            for task, style in zip(TASKS, ("-", ":"), strict=True):
                for arm, (_, colour, _) in LINES.items():
                    if self.has(arm):
                        found = self._means(arm, "feature_drift", task=task)
                        means = [values.mean() for values in found.values()]
                        axes[0][2].plot(list(found), means, style, color=colour, marker=".")
            axes[0][2].set_xlabel("keep ratio of a block")
            axes[0][2].set_ylabel("drift of the mean feature")
            axes[0][2].set_title("solid: CIFAR-10, dotted: scenes")
            axes[0][2].invert_xaxis()
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    def _by_layer(self, arm: str, task: str) -> tuple[list[int], list[float]]:
        if not self.has(arm):
            return [], []
        parts = [self.rows(arm, seed, "spectral_distance_of_images") for seed in self.runs(arm)]
        rows = pl.concat(parts).with_columns(pl.col("at").str.extract(r"layer=(\d+)").cast(pl.Int64).alias("layer"))
        at = pl.col("at")
        own = at.str.contains(f"task={task}") & at.str.contains("ratio=0.8,") & at.str.contains("weight=similarity")
        means = rows.filter(own).group_by("layer").agg(pl.col("value").mean()).sort("layer")
        return means["layer"].to_list(), means["value"].to_list()

    def spectra(self) -> None:
        """Draw the spectral distance of planted clusters against their noise."""
        caption = (
            "Planted clusters: spectral distance between the graph of all tokens and the graph after one merge, "
            "against the spread of tokens around their centres, averaged over 64, 144 and 256 tokens (log scales; "
            "means over draws and seeds). Columns: share of tokens kept, and at the right many merges down to the "
            "number of clusters. Above, edges weigh by similarity, below by the paper's cosine distance. One merge "
            "should cost PiToMe (blue) less than ToMe (red), and nothing as the noise goes to zero."
        )
        ratios = sorted(self._means(METHOD, "spectral_distance", weight="similarity"), reverse=True)
        with self.figure("spectral-distance", caption, 2, len(ratios) + 1, (9.6, 5.2)) as (figure, axes):
            for line, weight in zip(axes, ("similarity", "distance"), strict=True):
                for axis, ratio in zip(line, [*ratios, None], strict=True):
                    for arm in (METHOD, PARITY, "random_merge"):
                        if self.has(arm):
                            label, colour, style = LINES[arm]
                            noises, values = self._by_noise(arm, weight, ratio)
                            axis.plot(noises, values, style, color=colour, label=label, markersize=4)
                    axis.set_xscale("log")
                    axis.set_yscale("log")
                    axis.set_title(f"{weight}, " + ("many merges" if ratio is None else f"{ratio:g} kept"))
                    axis.set_xlabel("noise")
                    axis.set_ylabel("spectral distance")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def _by_noise(self, arm: str, weight: str, ratio: float | None) -> tuple[list[float], list[float]]:
        metric = "spectral_distance_of_steps" if ratio is None else "spectral_distance"
        found: dict[float, list[float]] = {}
        for seed in self.runs(arm):
            for text, value in self.rows(arm, seed, metric).group_by("at").agg(pl.col("value").mean()).iter_rows():
                given = conditions(text)
                fits = given["weight"] == weight and (ratio is None or float(given["ratio"]) == ratio)
                if fits and "noise" in given:
                    found.setdefault(float(given["noise"]), []).append(value)
        return sorted(found), [float(np.mean(found[noise])) for noise in sorted(found)]

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
                    found = self._means(arm, "accuracy", questions=group)
                    cost = [values.mean() for values in self._means(arm, "gflops").values()][: len(found)]
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
