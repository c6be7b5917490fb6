"""Accuracy above blind, what is retained of the whole model's, and the figures."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from PIL import Image

from components.metrics.tables import MetricTable, condition
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

_PAIR = ("kcenter", "cls_topk")
_LINES = {
    "kcenter": ("diverse: k-center (max-min)", "#1b6ca8", "-"),
    "maxsum": ("diverse: max-sum", "#1b6ca8", ":"),
    "cls_topk": ("highest class attention", "#c8553d", "-"),
    "fastv": ("FastV: last token's attention, from layer 2", "#8a6fb0", "-"),
    "tome_merge": ("ToMe: merged", "#4f8a5b", "-"),
    "random": ("random", "#8a8a8a", "-"),
    "uniform": ("even grid", "#d9a441", "-"),
}
_TYPES = ("exist", "colour", "shape", "size", "count", "relation", "place", "read")
_SHOWN = ("kcenter", "maxsum", "cls_topk", "random", "uniform")


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return accuracies above blind and what is retained."""
    figures = _Figures(stage)
    if not figures.has("full", "blind", *_PAIR):
        return {}
    tables = figures.above_blind()
    figures.budgets()
    if figures.has("fixed_drop"):
        figures.migration()
        figures.layers()
    figures.kept()
    return tables


class _Figures(RunFigures):
    def above_blind(self) -> dict[tuple[str, int], MetricTable]:
        """Return accuracies above blind of every arm, and shares of the whole model's, scene by scene."""
        tables = {}
        blind = {seed: self._accuracy(run) for seed, run in self.runs("blind").items()}
        whole = {seed: self._accuracy(run) for seed, run in self.runs("full").items()}
        for (arm, seed), run in sorted(self.stage.evaluations.items()):
            table = tables[arm, seed] = MetricTable()
            for (group, tokens), items in self._accuracy(run).items():
                floor = next(own for (name, _), own in blind[seed].items() if name == group)
                top = next(own for (name, _), own in whole[seed].items() if name == group)
                above, all_above = items - floor, float((top - floor).mean())
                at = {"questions": group, "tokens": tokens}
                table.add_items("above_blind", above.tolist(), unit="points", at=at)
                if all_above:
                    share = 100 * float(above.mean()) / all_above
                    table.add("retained", share, unit="percent", at=at, samples=len(items))
        self._best(tables)
        return tables

    def _best(self, tables: dict[tuple[str, int], MetricTable]) -> None:
        """Add the better arm of the pair under the first one's runs: whether either sees anything."""
        frames = {run: tables[run].frame().filter(pl.col("metric") == "above_blind") for run in tables}
        for at in frames[_PAIR[0], min(self.runs(_PAIR[0]))]["at"].unique().sort():
            group, tokens = (part.split("=")[1] for part in at.split(","))
            if group != "general":
                continue
            means = {
                arm: np.mean([frames[arm, seed].filter(pl.col("at") == at)["value"].mean() for seed in self.runs(arm)])
                for arm in _PAIR
            }
            best = max(_PAIR, key=means.get)
            for seed in self.runs(_PAIR[0]):
                values = frames[best, seed].filter(pl.col("at") == at)["value"]
                tables[_PAIR[0], seed].add_items(
                    "best_above_blind", values.to_list(), unit="points", at={"tokens": int(tokens)}
                )

    def _accuracy(self, run) -> dict[tuple[str, int], np.ndarray]:
        """Return accuracies by group of questions and number of tokens, one value per scene."""
        frame = pl.read_parquet(run / "metrics.parquet").filter(pl.col("metric") == "accuracy")
        found = {}
        for (at,), rows in frame.group_by(["at"], maintain_order=True):
            group, tokens = (part.split("=")[1] for part in at.split(","))
            found[group, int(tokens)] = rows["value"].to_numpy()
        return found

    def _along(self, arm: str, metric: str, key: str, at: dict[str, object]) -> tuple[list[int], np.ndarray]:
        """Return values of a key, and a metric's means along it where the rest of the condition is `at`, (seeds, X)."""
        rows, fixed = [], condition(at).split(",") if at else []
        for _, frame in self.values(arm, metric):
            parts = pl.col("at").str.split(",")
            own = frame.filter(parts.list.len() == len(fixed) + 1)
            for part in fixed:
                own = own.filter(parts.list.contains(part))
            x = pl.col("at").str.extract(rf"\b{key}=(\d+)").cast(pl.Int64).alias("x")
            rows.append(own.with_columns(x).group_by("x").agg(pl.col("value").mean()).sort("x"))
        return rows[0]["x"].to_list(), np.stack([frame["value"].to_numpy() for frame in rows])

    def budgets(self) -> None:
        """Draw accuracy against the number of visual tokens."""
        caption = (
            "Share of questions answered rightly against the number of visual tokens that are kept, of 144. Left: "
            "general questions (is there, how many, which colour, shape, size, place, relation). Right: reading the "
            "glyphs of a sign. The paper's claim: diverse tokens (blue) answer more than those with the highest "
            "attention (red). Dashed: all tokens. Grey band: zeros in place of the picture. Lines are means over "
            "three bases, dots single bases; nothing was trained for fewer tokens."
        )
        with self.figure("accuracy-by-budget", caption, 1, 2, (8.6, 4.2)) as (figure, axes):
            for axis, group in zip(axes[0], ("general", "read"), strict=True):
                at = {"questions": group}
                for arm, (label, colour, style) in _LINES.items():
                    if self.has(arm):
                        tokens, values = self._along(arm, "accuracy", "tokens", at)
                        axis.plot(tokens, values.mean(0), style, color=colour, label=label)
                        axis.plot(tokens, values.T, ".", color=colour, markersize=3, alpha=0.6)
                _, full = self._along("full", "accuracy", "tokens", at)
                axis.axhline(full.mean(), color="k", linestyle="--", linewidth=1, label="all tokens")
                _, blind = self._along("blind", "accuracy", "tokens", at)
                axis.axhspan(blind.min(), blind.max() + 0.3, color="#bbbbbb", alpha=0.6, label="without picture")
                axis.set_xticks(tokens, [str(count) for count in tokens])
                axis.set_xlabel("visual tokens kept")
                axis.set_ylabel("right answers (%)")
                axis.set_title("general questions" if group == "general" else "reading the sign")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def migration(self) -> None:
        """Draw where questions look layer by layer, and what a drop at each layer costs."""
        caption = (
            "Information migration. Left: share of a question's attention that goes to visual tokens, by layer; the "
            "dotted line is the rule's threshold of 0.1. Right: right answers to all questions when every visual "
            "token is dropped from a layer on; at the last tick nothing is dropped. The paper's claim: in late "
            "layers questions look at the picture no more, so that it can go without loss. Lines are means over "
            "three bases, dots single bases."
        )
        colours = ("#0d3b66", "#1b6ca8", "#7fb2d9")
        with self.figure("migration", caption, 1, 2, (8.6, 3.6)) as (_, axes):
            left, right = axes[0]
            whole = max(self._along("full", "accuracy", "tokens", {"questions": "all"})[0])
            curves = [*(("fixed_drop", count) for count in self._swept()), ("full", whole)]
            for colour, (arm, tokens) in zip(colours, curves, strict=False):
                layers, values = self._along(arm, "text_to_visual", "layer", {"tokens": tokens})
                _curve(left, layers, values, colour, f"{tokens} visual tokens")
            for colour, count in zip(colours, self._swept(), strict=False):
                layers, values = self._along(
                    "fixed_drop", "dropped_accuracy", "layer", {"questions": "all", "tokens": count}
                )
                _curve(right, layers, values, colour, f"{count} visual tokens")
            left.axhline(0.1, color="k", linestyle=":", linewidth=1)
            left.set_ylim(0, None)
            left.set_xlabel("layer")
            left.set_ylabel("attention to visual tokens (share)")
            right.set_xlabel("layer from which on no visual token is left")
            right.set_ylabel("right answers, all questions (%)")
            for axis in (left, right):
                axis.legend()

    def _swept(self) -> list[int]:
        frame = next(iter(self.values("fixed_drop", "dropped_accuracy")))[1]
        return sorted(frame["at"].str.extract(r"tokens=(\d+)").cast(pl.Int64).unique().to_list())

    def layers(self) -> None:
        """Draw the first layer at which attention has fallen, by type of question."""
        count = self._swept()[0]
        caption = (
            f"Types of questions, with {count} visual tokens. Left: the first layer, from 1 on, in which less than 0.1 "
            "of a question's attention goes to visual tokens, where a rule asked in every layer would drop them; grey: "
            "it looks in every layer. Right: right answers when they are dropped from a layer on, without any rule: a "
            "row that is dark early has its answer early. Means over three bases."
        )
        with self.figure("drop-layers", caption, 1, 2, (9.4, 3.4), width_ratios=(1.5, 1)) as (figure, axes):
            left, right = axes[0]
            found = {kind: self._by_type("fallen_by_type", count, kind) for kind in _TYPES}
            found = {kind: values for kind, values in found.items() if len(values)}
            bottom, layers = np.zeros(len(found)), len(next(iter(found.values())))
            for index in range(layers):
                last = index == layers - 1
                colour = "#cccccc" if last else (0.85 - 0.14 * index, 0.90 - 0.11 * index, 0.95 - 0.06 * index)
                height = np.array([values[index] for values in found.values()])
                label = "in none" if last else f"layer {index + 1}"
                left.bar(list(found), height, 0.7, bottom, color=colour, label=label)
                bottom += height
            left.set_xlabel("type of question")
            left.set_ylabel("questions (%)")
            left.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
            swept = np.stack([self._by_type("dropped_by_type", count, kind) for kind in found])
            image = right.imshow(swept, cmap="Blues", vmin=0, vmax=100, aspect="auto")
            right.set_yticks(range(len(found)), list(found))
            right.set_xticks(range(swept.shape[1]))
            right.set_xlabel("layer from which on no visual token is left")
            figure.colorbar(image, ax=right, label="right answers (%)")

    def _by_type(self, metric: str, count: int, kind: str) -> np.ndarray:
        """Return means over seeds along the layers, (X,); empty where there is no such question."""
        return self._along("fixed_drop", metric, "layer", {"tokens": count, "type": kind})[1].mean(0)

    def kept(self) -> None:
        """Show which tokens of some scenes are kept."""
        arms = [arm for arm in _SHOWN if self.has(arm)]
        frames = {arm: pl.read_parquet(next(iter(self.runs(arm).values())) / "samples.parquet") for arm in arms}
        first = frames[arms[0]]
        count = len(first["kept"][0])
        caption = (
            f"Which {count} of {first['rows'][0] ** 2} visual tokens are kept (framed), in scenes that no training "
            "showed; first base. Second column: attention of the encoder's class token. What to look at: whether a "
            "choice spends its tokens on neighbours of one object, or reaches every object and every glyph of the sign."
        )
        size = (1.25 * (len(arms) + 2), 1.3 * len(first) + 0.3)
        with self.figure("kept-tokens", caption, len(first), len(arms) + 2, size) as (_, axes):
            for line, row in zip(axes, range(len(first)), strict=True):
                picture = np.asarray(Image.open(io.BytesIO(first["image"][row])))
                side = first["rows"][row]
                scale = picture.shape[0] // side
                line[0].imshow(picture, interpolation="none")
                attention = np.array(first["attention"][row]).reshape(side, side)
                line[1].imshow(attention, cmap="magma", interpolation="none")
                for axis, arm in zip(line[2:], arms, strict=True):
                    mask = np.zeros(side * side)
                    mask[frames[arm]["kept"][row].to_list()] = 1
                    large = mask.reshape(side, side).repeat(scale, 0).repeat(scale, 1)[..., None]
                    axis.imshow((picture * (0.3 + 0.7 * large)).astype(np.uint8), interpolation="none")
                    corners = [
                        (scale * (cell % side) - 0.5, scale * (cell // side) - 0.5) for cell in np.nonzero(mask)[0]
                    ]
                    edges = [Rectangle(corner, scale, scale) for corner in corners]
                    axis.add_collection(PatchCollection(edges, facecolor="none", edgecolor="#ff4fd8", linewidth=0.6))
                for axis in line:
                    axis.set_xticks([])
                    axis.set_yticks([])
                    axis.spines[:].set_visible(False)
            for axis, title in zip(axes[0], ["scene", "class attention", *arms], strict=True):
                axis.set_title(title, fontsize=8)


def _curve(axis: Axes, x: list[int], values: np.ndarray, colour: str, label: str) -> None:
    axis.plot(x, values.mean(0), "-", color=colour, label=label)
    axis.plot(x, values.T, ".", color=colour, markersize=4, alpha=0.6)
    axis.set_xticks(x)
