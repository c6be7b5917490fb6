"""Figures of Token Recycling: tokens a forward pass by arm and by tree size, what is accepted, one text in passes."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy.special import stdtrit

from flows.studies.context import JudgeContext
from flows.studies.decoding.token_recycling.evaluate import DECODINGS
from flows.studies.figures import RunFigures

_LABELS = {
    "tr_hot": "Token Recycling, hot",
    "tr_cold": "cold: anew for each prompt",
    "tr_warm": "warm: after another set",
    "tr_frozen": "warm, never refreshed",
    "tr_bigram": "bigram of training text",
    "tr_prefill": "hot, prompt written too",
    "chain": "chain, no branches",
    "tree_8": "first 8 nodes",
    "tree_24": "first 24 nodes",
    "tree_48": "first 48 nodes",
    "k_2": "2 candidates",
    "k_4": "4 candidates",
    "pld": "prompt look-up",
    "greedy": "plain decoding",
}
_MODELS = {"code": ("model of code", "#1b6ca8"), "math": ("model of word problems", "#c8553d")}
_TREES = ("tree_8", "tree_24", "tree_48", "tr_hot")
_OTHERS = {"k_2": "s", "k_4": "D", "chain": "x", "pld": "+"}
_COLUMNS, _SHOWN_LINES = 46, 14  # of a text that is shown in passes
_SHADES = ("#d8e6f2", "#f6e3d3")


def derive(stage: JudgeContext) -> None:
    """Draw the figures that the variant's arms allow."""
    figures = _Figures(stage)
    arms = [arm for arm in _LABELS if figures.has(arm)]
    models = sorted({at.removeprefix("base=") for at in figures.frame(arms[0], "mat")["at"]})
    figures.by_arm(arms, models)
    if figures.has(*_TREES):
        figures.by_size([arm for arm in _OTHERS if figures.has(arm)], models)
    if figures.has("tr_hot", "pld"):
        figures.acceptance(models)
        figures.passes([arm for arm in ("pld", "tr_cold", "tr_hot") if figures.has(arm)])


class _Figures(RunFigures):
    def frame(self, arm: str, metric: str) -> pl.DataFrame:
        """All seeds' rows of a metric, each seed's items averaged: columns seed, at, value."""
        frames = [frame.with_columns(seed=pl.lit(seed)) for seed, frame in self.values(arm, metric)]
        return pl.concat(frames).group_by("seed", "at", maintain_order=True).agg(pl.col("value").mean())

    def seeds(self, arm: str, metric: str, at: str) -> np.ndarray:
        """Value of each seed at one condition."""
        return self.frame(arm, metric).filter(pl.col("at") == at)["value"].to_numpy()

    def by_arm(self, arms: list[str], models: list[str]) -> None:
        caption = (
            "Mean accepted tokens: new tokens over forward passes on the judged prompts, by arm and language model. "
            "Points are means over prompt sets with 95% intervals, small dots single sets. Plain decoding gives 1. "
            "The paper's point: recycled candidates give well above 2, and more than copying from the text."
        )
        size = (3.9 * len(models) + 1.2, 0.26 * len(arms) + 1.1)
        with self.figure("accepted-by-arm", caption, 1, len(models), size, sharey=True) as (_, axes):
            for axis, model in zip(axes[0], models, strict=True):
                title, colour = _MODELS[model]
                for row, arm in enumerate(reversed(arms)):
                    values = self.seeds(arm, "mat", f"base={model}")
                    axis.errorbar(values.mean(), row, xerr=_half_width(values), fmt="o", ms=4, color=colour, capsize=2)
                    axis.plot(values, [row] * len(values), ".", ms=3, color="#222222", alpha=0.5)
                axis.set_yticks(range(len(arms)), [_LABELS[arm] for arm in reversed(arms)])
                axis.axvline(1, color="#8a8a8a", linewidth=0.8, linestyle=":")
                axis.set_xlim(left=0.9)
                axis.set_xlabel("accepted tokens per forward pass")
                axis.set_title(title, fontsize=9)

    def by_size(self, others: list[str], models: list[str]) -> None:
        caption = (
            "Mean accepted tokens against the drafts of a forward pass: the released tree cut to its first 8, 24, 48 "
            "and 80 nodes (lines, with 95% intervals over prompt sets), trees of fewer candidates a token, the chain "
            "without branches and prompt look-up. Without drafts a pass gives one token."
        )
        with self.figure("accepted-by-size", caption, 1, 1, (5.4, 3.6)) as (_, axes):
            axis = axes[0][0]
            for model in models:
                label, colour = _MODELS[model]
                at = f"base={model}"
                values = [self.seeds(arm, "mat", at) for arm in _TREES]
                nodes = [self.seeds(arm, "draft_nodes", at).mean() for arm in _TREES]
                means, halves = [each.mean() for each in values], [_half_width(each) for each in values]
                axis.errorbar([0, *nodes], [1, *means], yerr=[0, *halves], fmt="o-", ms=4, color=colour, label=label)
                for arm in others:
                    mean = self.seeds(arm, "mat", at).mean()
                    place = self.seeds(arm, "draft_nodes", at).mean()
                    filled = {} if _OTHERS[arm] in "x+" else {"markerfacecolor": "none"}
                    name = _LABELS[arm] if model == models[0] else None
                    axis.plot(place, mean, _OTHERS[arm], ms=6, color=colour, label=name, **filled)
            axis.set_xlabel("drafts of a forward pass (nodes without the root)")
            axis.set_ylabel("accepted tokens per forward pass")
            axis.set_ylim(bottom=0.9)
            axis.legend(fontsize=7)

    def acceptance(self, models: list[str]) -> None:
        caption = (
            "What forward passes accept. Left: share of passes that give so many tokens, for Token Recycling (filled) "
            "and prompt look-up (open). Middle: of the passes whose path reached a level of the tree, the share that "
            "goes one level deeper. Right: at which place in their parent's row the accepted drafts of Token Recycling "
            "stood (0 is the likeliest). Means over prompt sets."
        )
        with self.figure("acceptance", caption, 1, 3, (9.6, 3.0)) as (figure, axes):
            share, depth, candidate = axes[0]
            for offset, model in zip((-0.2, 0.2), models, strict=False):
                label, colour = _MODELS[model]
                for arm, width, filled in (("pld", 0.36, False), ("tr_hot", 0.26, True)):
                    places, values = self._along(arm, "accepted_share", model, "accepted")
                    style = {"color": colour} if filled else {"facecolor": "none", "edgecolor": colour}
                    name = f"{_LABELS[arm]}, {label}"
                    share.bar(places + offset, values, width, label=name, linewidth=0.8, **style)
                for arm, style in (("tr_hot", "o-"), ("pld", "o--")):
                    places, values = self._along(arm, "acceptance_by_depth", model, "depth")
                    filled = {} if arm == "tr_hot" else {"markerfacecolor": "none"}
                    depth.plot(places, values, style, ms=4, color=colour, **filled)
                places, values = self._along("tr_hot", "acceptance_by_candidate", model, "candidate")
                candidate.bar(places + offset, values, 0.36, color=colour)
            share.set(xlabel="tokens of a forward pass", ylabel="share of passes")
            depth.set(xlabel="depth of the draft", ylabel="share accepted", ylim=(0, 1))
            candidate.set(xlabel="place in the parent's row", ylabel="share of accepted drafts")
            for axis in (share, candidate):
                axis.set_yscale("log")
                axis.set_ylim(0.001, 1)
                axis.set_yticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
                axis.minorticks_off()
            figure.legend(*share.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)

    def _along(self, arm: str, metric: str, model: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean over seeds at each value of a key; a value that a seed does not have counts as zero there."""
        frame = self.frame(arm, metric).filter(pl.col("at").str.contains(f"base={model}", literal=True))
        frame = frame.with_columns(key=pl.col("at").str.extract(rf"{key}=(\d+)").cast(pl.Int64))
        means = frame.group_by("key").agg(pl.col("value").sum() / frame["seed"].n_unique()).sort("key")
        return means["key"].to_numpy().astype(float), means["value"].to_numpy()

    def passes(self, arms: list[str]) -> None:
        caption = (
            "One held-out piece of code, continued by 64 tokens: each change of shade is one forward pass of the "
            "model. All decoders spell the same text; the fewer the shades, the fewer the passes. The prompt is the "
            "last of its set, so the hot matrix has seen all others."
        )
        seed = min(self.runs(arms[-1]))
        with self.figure("passes", caption, 1, len(arms), (3.5 * len(arms), 2.9)) as (_, axes):
            for axis, arm in zip(axes[0], arms, strict=True):
                frame = pl.read_parquet(self.runs(arm)[seed] / DECODINGS)
                last = frame.filter(pl.col("set") == "judged").sort("model", maintain_order=True)
                texts = last.filter(pl.col("model") == last["model"][0])["texts"][-1].to_list()
                _draw_passes(axis, texts)
                axis.set_title(f"{_LABELS[arm]}: {len(texts)} passes", fontsize=9)


def _half_width(values: np.ndarray) -> float:
    """Half of the 95% interval of a mean over prompt sets, which share no prompt; 0 where there is one."""
    n = len(values)
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def _draw_passes(axis: Axes, texts: list[str]) -> None:
    """Lay a text out in lines, each pass with a shade of its own."""
    row = column = 0
    for number, text in enumerate(texts):
        for index, line in enumerate(text.split("\n")):
            if index:
                row, column = row + 1, 0
            while line:
                room = _COLUMNS - column
                part, line = line[:room], line[room:]
                if row < _SHOWN_LINES:
                    shade = Rectangle((column, row), len(part), 0.92, color=_SHADES[number % 2], linewidth=0)
                    axis.add_patch(shade)
                    written = part.rstrip()
                    indent = len(written) - len(written.lstrip())
                    axis.text(column + indent, row + 0.5, written.strip(), family="monospace", fontsize=8.2,
                              va="center", parse_math=False)  # fmt: skip
                column += len(part)
                if line:
                    row, column = row + 1, 0
    axis.set(xlim=(0, _COLUMNS), ylim=(min(row + 1, _SHOWN_LINES), 0), xticks=[], yticks=[])
    axis.axis("off")
