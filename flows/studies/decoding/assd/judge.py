"""Figures of any-subset speculative decoding: calls, drift, acceptance, density by order; and the drift itself."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.decoding.assd.filling import FILLINGS
from flows.studies.figures import RunFigures

_FILLERS = {
    "sequential": ("one token a call", "#222222", "s"),
    "assd_self": ("verified, own drafts", "#1b6ca8", "o"),
    "assd_ngram": ("verified, drafts from pairs in the text", "#4f9d69", "D"),
    "parallel_uncorrected": ("not verified", "#c8553d", "x"),
    "mdm_ancestral": ("masked diffusion", "#8a6bbf", "+"),
}
_ORDERS = {
    "train_lattice": ("from left to right", "#1b6ca8"),
    "train_any_permutation": ("any order", "#c8553d"),
    "train_parallel": ("blind to each other", "#8a6bbf"),
}
_SHOWN = ("sequential", "assd_self", "parallel_uncorrected", "mdm_ancestral")


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures that the variant's arms allow, and return how far unverified fillings drift."""
    figures = _Figures(stage)
    arms = [arm for arm in _FILLERS if figures.has(arm)]
    if "assd_self" in arms:
        figures.calls(arms)
        figures.judged(arms)
        figures.acceptance([arm for arm in ("assd_self", "assd_ngram") if arm in arms])
        figures.texts([arm for arm in _SHOWN if arm in arms])
    if figures.has("train_lattice", "train_any_permutation"):
        figures.orders()
    return _drift(figures) if {"assd_self", "parallel_uncorrected"} <= set(arms) else {}


def _drift(figures: _Figures) -> dict[tuple[str, int], MetricTable]:
    """Return judge_nll of parallel minus speculative filling, window by window and k by k."""
    verified, found = dict(figures.values("assd_self", "judge_nll")), {}
    for seed, frame in figures.values("parallel_uncorrected", "judge_nll"):
        if seed not in verified:
            continue
        table = MetricTable()
        pairs = frame.join(verified[seed], on=["at", "sample"], suffix="_verified", maintain_order="left")
        for (at,), part in pairs.group_by("at", maintain_order=True):
            gap = (part["value"] - part["value_verified"]).to_list()
            where = {"k": int(at.removeprefix("k="))}
            table.add_items(
                "drift", gap, unit="nats/token", at=where, items=part["sample"].to_list(), normaliser="tokens"
            )
        found["parallel_uncorrected", seed] = table
    return found


class _Figures(RunFigures):
    def by_k(self, arm: str, metric: str) -> tuple[list[int], np.ndarray]:
        """Return the ks of an arm and the mean of a metric for every seed and k, (seeds, ks)."""
        frames = [frame.group_by("at").agg(pl.col("value").mean()) for _, frame in self.values(arm, metric)]
        ks = sorted(int(at.removeprefix("k=")) for at in frames[0]["at"])
        values = [dict(frame.iter_rows()) for frame in frames]
        return ks, np.array([[each[f"k={k}"] for k in ks] for each in values])

    def lines(self, axis, arms: list[str], metric: str) -> None:
        for arm in arms:
            label, colour, marker = _FILLERS[arm]
            ks, values = self.by_k(arm, metric)
            axis.plot(ks, values.T, color=colour, alpha=0.35, linewidth=0.8)
            axis.plot(ks, values.mean(0), marker=marker, color=colour, label=label)
        axis.set_xlabel("k: tokens drafted at once, or of a step")
        axis.set_xticks([1, 2, 5, 10])

    def calls(self, arms: list[str]) -> None:
        caption = (
            "Network calls per filled token against the number k of tokens drafted at once; thin lines are seeds. "
            "Verified drafts never take more calls than tokens (dashed), and fewer where drafts are accepted. Tokens "
            "that are not verified take 1/k calls, at the price that the next figure shows."
        )
        with self.figure("calls", caption, 1, 1, (7.4, 3.6)) as (_, axes):
            axis = axes[0][0]
            axis.axhline(1, color="#8a8a8a", linestyle="--", linewidth=1, label="as many calls as tokens")
            self.lines(axis, arms, "calls_per_token")
            axis.set_ylabel("network calls per token")
            axis.set_ylim(0, None)
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))

    def judged(self, arms: list[str]) -> None:
        caption = (
            "What an independent causal model needs for the filled texts, against tokens drafted at once; thin lines "
            "are seeds, dashed the held-out texts as they were. Verified drafts stay where one token after the other "
            "is; tokens written without seeing each other drift away from it, the more of them at once the further."
        )
        with self.figure("judge-nll", caption, 1, 1, (7.4, 3.6)) as (_, axes):
            axis = axes[0][0]
            self.lines(axis, arms, "judge_nll")
            level = np.mean([frame["value"].mean() for _, frame in self.values("assd_self", "original_nll")])
            axis.axhline(level, color="#8a8a8a", linestyle="--", linewidth=1, label="the original texts")
            axis.set_ylabel("judge NLL (nats/token)")
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))

    def acceptance(self, arms: list[str]) -> None:
        caption = (
            "Share of the judged drafts that are accepted, by place in the draft (those behind a refused one are not "
            "judged). The network's own first draft has the law that it is verified against and is always accepted; "
            "later ones were drawn without seeing those before them. Small dots are seeds."
        )
        with self.figure("acceptance", caption, 1, 1, (7.4, 3.4)) as (_, axes):
            axis = axes[0][0]
            for arm in arms:
                label, colour, marker = _FILLERS[arm]
                frames = [frame.select("at", "value") for _, frame in self.values(arm, "acceptance")]
                frame = pl.concat(frames).with_columns(
                    place=pl.col("at").str.extract(r"draft=(\d+)").cast(pl.Int64),
                    k=pl.col("at").str.extract(r"k=(\d+)").cast(pl.Int64),
                )
                for (k,), part in frame.group_by("k", maintain_order=True):
                    means = part.group_by("place").agg(pl.col("value").mean()).sort("place")
                    style = {2: ":", 5: "-", 10: "--"}.get(k, "-")
                    axis.plot(
                        means["place"] + 1, means["value"], style, marker=marker, ms=4, color=colour,
                        label=f"{label}, k = {k}",
                    )  # fmt: skip
                    axis.scatter(part["place"] + 1, part["value"], 5, color=colour, alpha=0.4, linewidths=0)
            axis.set_xlabel("place in the draft")
            axis.set_ylabel("share accepted")
            axis.set_ylim(0, 1.03)
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))

    def orders(self) -> None:
        caption = (
            "Joint density of the masked characters of held-out windows for networks trained in one order or another, "
            "read from left to right (filled) and in a random order (hollow); points are seeds. Dashed: counts of "
            "pairs and of single characters, the former seeing the true character to the left."
        )
        frames = {arm: [frame for _, frame in self.values(arm, "joint_nll")] for arm in _ORDERS if self.has(arm)}
        shares = sorted(set(frames["train_lattice"][0]["at"].str.extract(r"mask=([\d.]+)")))
        with self.figure("orders", caption, 1, len(shares), (3.4 * len(shares), 3.4), sharey=True) as (_, axes):
            for axis, share in zip(axes[0], shares, strict=True):
                for row, (arm, seeds) in enumerate(frames.items()):
                    for order, fill, shift in (("lattice", True, -0.1), ("random", False, 0.1)):
                        at = f"mask={share},model=network,order={order}"
                        values = [_mean(frame, at) for frame in seeds]
                        colour = _ORDERS[arm][1]
                        places = row + shift + 0.03 * np.arange(len(values))
                        axis.scatter(
                            places, values, 26, facecolors=colour if fill else "none", edgecolors=colour, linewidths=1
                        )
                for model, style in (("bigram", "--"), ("unigram", ":")):
                    level = _mean(frames["train_lattice"][0], f"mask={share},model={model}")
                    axis.axhline(level, color="#8a8a8a", linestyle=style, linewidth=1)
                    axis.annotate(model, (len(frames) - 0.6, level), fontsize=7, va="bottom", ha="right")
                axis.set_xticks(range(len(frames)), [_ORDERS[arm][0] for arm in frames], fontsize=7)
                axis.set_xlim(-0.6, len(frames) - 0.4)
                axis.set_title(f"{100 * float(share):.0f}% masked", fontsize=9)
                axis.set_xlabel("order of training")
            axes[0][0].set_ylabel("joint NLL (nats/token)")

    def texts(self, arms: list[str]) -> None:
        caption = (
            "Two held-out windows and what was filled in between the given characters (the second line shows those, "
            "gaps as underscores), by every way of filling with its largest k. Line breaks are drawn as |."
        )
        rows = []
        for arm in arms:
            run = next(iter(self.runs(arm).values()))
            frame = pl.read_parquet(run / FILLINGS)
            k = frame["k"].max()
            chosen = frame.filter(pl.col("k") == k).head(2)
            if not rows:
                rows = [[("original", text) for text in chosen["original"]]]
                rows.append([("given", text) for text in chosen["given"]])
            rows.append([(f"{_FILLERS[arm][0]}, k = {k}", text) for text in chosen["filled"]])
        with self.figure("fillings", caption, 1, 1, (9.5, 0.42 * len(rows) + 0.5)) as (_, axes):
            axis = axes[0][0]
            axis.set_axis_off()
            axis.set_xlim(0, 1)
            count = 2 * len(rows) + 1
            axis.set_ylim(-count, 0)
            for window in range(min(2, len(rows[0]))):
                for place, row in enumerate(rows):
                    label, text = row[window]
                    height = -(window * (len(rows) + 1) + place) - 0.5
                    axis.text(0, height, label, fontsize=7, va="center")
                    axis.text(
                        0.27, height, _printable(text), fontsize=7, va="center", family="monospace", parse_math=False
                    )


def _mean(frame: pl.DataFrame, at: str) -> float:
    return float(frame.filter(pl.col("at") == at)["value"].mean())


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "|" if sign == "\n" else "?" for sign in text)[:80]
