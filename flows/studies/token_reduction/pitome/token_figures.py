"""The figures of PiToMe on what happens to tokens: which are merged, and what becomes of their graphs' spectra."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from PIL import Image

from flows.studies.token_reduction.pitome.figures import LINES, METHOD, PARITY, TASKS, Figures, conditions


class TokenFigures(Figures):
    """Draws merged patches and spectral distances, too."""

    def merged(self) -> None:
        """Show which patches were merged, in photographs and in scenes."""
        arms = [arm for arm in (METHOD, PARITY, "no_protect") if self.has(arm)]
        frames = {arm: pl.read_parquet(next(iter(self.runs(arm).values())) / "samples.parquet") for arm in arms}
        # The method is also measured at ratios that no ablation has.
        ratio = min(set.intersection(*(set(frame["ratio"]) for frame in frames.values())))
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
                        found = self.means(arm, "feature_drift", task=task)
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
        ratios = sorted(self.means(METHOD, "spectral_distance", weight="similarity"), reverse=True)
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
