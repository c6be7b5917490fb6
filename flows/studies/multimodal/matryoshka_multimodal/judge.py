"""Comparisons and figures of Matryoshka Multimodal Models: one model at every scale, beside one model per scale."""

from __future__ import annotations

import io
import textwrap

import numpy as np
import polars as pl
from PIL import Image

from components.metrics.tables import MetricTable, condition
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

SPECIFIC = {36: "scale_specific_36", 9: "scale_specific_9", 1: "scale_specific_1"}
_OPTIONAL = 1  # the scale that is left out where its own model does not see
_SEES = 10.0  # points above blind from which on a model is said to see
_NESTED = "m3"
_LINES = {
    "m3": ("nested, all scales in every step", "#1b6ca8", "-"),
    "m3_random_scale": ("nested, one scale per step", "#1b6ca8", ":"),
    "pool_at_test": ("36-token model, pooled at test time", "#c8553d", "-"),
    "uniform_at_test": ("36-token model, even grid of tokens", "#d9a441", "-"),
    "random_at_test": ("36-token model, random tokens", "#8a8a8a", "-"),
    "sequential_at_test": ("36-token model, first tokens", "#8a6fb0", "-"),
}
_TYPES = ("exist", "colour", "shape", "size", "count", "relation", "place", "read")


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return the gaps to the specific models and what the seeds answer together."""
    figures = _Figures(stage)
    figures.scales()
    figures.types()
    figures.oracle()
    figures.scenes()
    return figures.comparisons()


class _Figures(RunFigures):
    def comparisons(self) -> dict[tuple[str, int], MetricTable]:
        """Return metrics that need several runs, under the nested model's."""
        tables = {(_NESTED, seed): MetricTable() for seed in self.runs(_NESTED)}
        for scale, arm in SPECIFIC.items():
            if not self.has(arm):
                continue
            counts = scale != _OPTIONAL or self._mean(arm, "above_blind", scale) >= _SEES
            differences = {}
            for seed in self.runs(_NESTED):
                both = self._items(_NESTED, seed, scale).join(self._items(arm, seed, scale), on="sample", suffix="_own")
                values = both["value"] - both["value_own"]
                differences[seed] = (both["sample"].to_list(), values if counts else values * 0.0)
            mean = float(np.mean([values.mean() for _, values in differences.values()]))
            for seed, (names, values) in differences.items():
                table = tables[_NESTED, seed]
                table.add_items("gap", values.to_list(), unit="points", at={"tokens": scale}, items=names)
                table.add("mean_gap", mean, unit="points", at={"tokens": scale}, samples=len(values))
        finest = max(SPECIFIC)
        frames = [self._items(_NESTED, seed, finest, "general") for seed in self.runs(_NESTED)]
        together = pl.concat(frames).group_by("sample").agg(pl.col("value").max())["value"]
        for (_, _), table in tables.items():
            table.add("oracle_over_seeds", float(together.mean()), unit="percent", samples=len(together))
        return tables

    def _items(self, arm: str, seed: int, scale: int, group: str = "general", metric: str = "accuracy") -> pl.DataFrame:
        frame = pl.read_parquet(self.runs(arm)[seed] / "metrics.parquet")
        at = condition({"questions": group, "tokens": scale})
        return frame.filter((pl.col("metric") == metric) & (pl.col("at") == at)).select("sample", "value")

    def _mean(self, arm: str, metric: str, scale: int, group: str = "general") -> float:
        return float(np.mean([self._items(arm, seed, scale, group, metric)["value"].mean() for seed in self.runs(arm)]))

    def _by_scale(self, arm: str, group: str, metric: str = "accuracy") -> tuple[list[int], np.ndarray]:
        """Return scales (S,) and the metric's mean over questions, (seeds, S)."""
        rows = []
        for _, frame in self.values(arm, metric):
            chosen = frame.filter(pl.col("at").str.starts_with(f"questions={group},"))
            chosen = chosen.with_columns(pl.col("at").str.extract(r"tokens=(\d+)").cast(pl.Int64).alias("tokens"))
            rows.append(chosen.group_by("tokens").agg(pl.col("value").mean()).sort("tokens"))
        return rows[0]["tokens"].to_list(), np.stack([frame["value"].to_numpy() for frame in rows])

    def scales(self) -> None:
        """Draw accuracy against the number of visual tokens."""
        caption = (
            "Share of questions answered rightly against the number of visual tokens the language model reads. Left: "
            "general questions (is there, how many, which colour, shape, size, place, relation). Right: reading the "
            "glyphs of a sign. The paper's point: one nested model (blue) is as good at every scale as a model "
            "trained for that scale alone (black diamonds), and far better than reducing an ordinary model's tokens "
            "at test time. Grey band: the nested model with zeros in place of the picture. Lines are means over "
            "seeds, dots single seeds."
        )
        with self.figure("accuracy-by-scale", caption, 1, 2, (8.6, 4.0)) as (figure, axes):
            for axis, group in zip(axes[0], ("general", "read"), strict=True):
                for arm, (label, colour, style) in _LINES.items():
                    if not self.has(arm):
                        continue
                    tokens, values = self._by_scale(arm, group)
                    axis.plot(tokens, values.mean(0), style, color=colour, label=label)
                    axis.plot(tokens, values.T, ".", color=colour, markersize=4, alpha=0.6)
                for scale, arm in SPECIFIC.items():
                    if self.has(arm):
                        tokens, values = self._by_scale(arm, group)
                        own = values[:, tokens.index(scale)]
                        label = "one model per scale" if scale == max(SPECIFIC) else None
                        axis.plot([scale], [own.mean()], "kD", markersize=5, label=label)
                tokens, above = self._by_scale(_NESTED, group, "above_blind")
                blind = self._by_scale(_NESTED, group)[1] - above
                axis.fill_between(
                    tokens, blind.min(0), blind.max(0), color="#bbbbbb", alpha=0.6, label="without picture"
                )
                axis.set_xscale("log")
                axis.set_xticks(tokens, [str(count) for count in tokens])
                axis.minorticks_off()
                axis.set_xlabel("visual tokens")
                axis.set_ylabel("right answers (%)")
                axis.set_title("general questions" if group == "general" else "reading the sign")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def types(self) -> None:
        """Draw the nested model's accuracy by type of question and scale."""
        caption = (
            "The nested model by type of question with 36, 9 and 1 visual tokens: which questions need detail. Bars "
            "are means over seeds, dots single seeds."
        )
        frames = [frame for _, frame in self.values(_NESTED, "accuracy_by_type")]
        every = pl.concat(frames).with_columns(
            pl.col("at").str.extract(r"tokens=(\d+)").cast(pl.Int64).alias("tokens"),
            pl.col("at").str.extract(r"type=(\w+)").alias("type"),
        )
        scales = sorted(every["tokens"].unique(), reverse=True)
        colours = ("#0d3b66", "#1b6ca8", "#9cc5e3", "#d7e8f5")
        with self.figure("accuracy-by-type", caption, 1, 1, (8.6, 3.2)) as (_, axes):
            axis = axes[0][0]
            for index, scale in enumerate(scales):
                for place, kind in enumerate(_TYPES):
                    values = every.filter((pl.col("tokens") == scale) & (pl.col("type") == kind))["value"].to_numpy()
                    if not len(values):
                        continue
                    x = place + (index - (len(scales) - 1) / 2) * 0.27
                    label = f"{scale} token{'s' * (scale > 1)}" if not place else None
                    axis.bar(x, values.mean(), 0.25, color=colours[index % len(colours)], label=label)
                    axis.plot(np.full(len(values), x), values, "k.", markersize=3)
            axis.set_xticks(range(len(_TYPES)), _TYPES)
            axis.set_xlabel("type of question")
            axis.set_ylabel("right answers (%)")
            axis.legend(ncols=len(scales), loc="upper center", bbox_to_anchor=(0.5, 1.16))

    def oracle(self) -> None:
        """Draw accuracy over all questions against mean tokens: fixed scales, and the oracle."""
        if not self.has("oracle"):
            return
        caption = (
            "All questions: share answered rightly against the mean number of visual tokens. The curve is the nested "
            "model at a fixed scale; the star chooses for every question the fewest tokens that answer it, which no "
            "deployed system could know: it shows how much there is to gain. One mark per seed."
        )
        with self.figure("oracle", caption, 1, 1, (4.8, 3.4)) as (_, axes):
            axis = axes[0][0]
            for seed in self.runs(_NESTED):
                tokens, means = [], []
                for scale in sorted(SPECIFIC):
                    parts = [self._items(_NESTED, seed, scale, group)["value"] for group in ("general", "read")]
                    tokens.append(scale)
                    means.append(pl.concat(parts).mean())
                axis.plot(tokens, means, "o-", color="#1b6ca8", markersize=4, label=None if seed else "fixed scale")
            for seed, run in self.runs("oracle").items():
                frame = pl.read_parquet(run / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
                found = dict(frame.iter_rows())
                axis.plot(
                    found["oracle_tokens"],
                    found["oracle_accuracy"],
                    "*",
                    color="#c8553d",
                    markersize=10,
                    label=None if seed else "oracle per question",
                )
            axis.set_xlabel("mean visual tokens per question")
            axis.set_ylabel("right answers (%)")
            axis.legend(loc="lower right")

    def scenes(self) -> None:
        """Show scenes, questions, and what the nested model answers at each scale."""
        caption = (
            "Scenes that no training showed, questions about them, and the nested model's answers with 36, 9 and 1 "
            "visual tokens (first seed; wrong answers in brackets)."
        )
        frame = pl.read_parquet(next(iter(self.runs(_NESTED).values())) / "samples.parquet")
        said = [name for name in frame.columns if name.startswith("said_")]
        rows = frame["row"].unique().sort().to_list()
        with self.figure("answers", caption, len(rows), 2, (8.0, 1.25 * len(rows)), width_ratios=(1, 6)) as (_, axes):
            for line, row in zip(axes, rows, strict=True):
                own = frame.filter(pl.col("row") == row)
                line[0].imshow(np.asarray(Image.open(io.BytesIO(own["image"][0]))), interpolation="none")
                text = []
                for question in own.head(6).iter_rows(named=True):
                    words = [question[name] for name in said]
                    marked = [word if word == question["answer"] else f"({word})" for word in words]
                    text.append(f"{textwrap.shorten(question['question'], 60)}  {' / '.join(marked)}")
                line[1].text(0, 1, "\n".join(text), va="top", fontsize=7, family="monospace")
                for axis in line:
                    axis.set_xticks([])
                    axis.set_yticks([])
                    axis.spines[:].set_visible(False)
