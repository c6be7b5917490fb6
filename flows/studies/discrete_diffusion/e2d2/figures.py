"""Figures of block diffusion with an encoder: quality against speed, operations and evaluations.

Captions of figures explain themselves; a variant draws those that its metrics allow.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl

from flows.studies.figures import RunFigures

METHOD, SPEED = "e2d2_6_2", "speed"
_DEPTH = re.compile(r"bd3lm_(\d+)")
_LABELS = {
    "e2d2_6_2": "encoder 6, decoder 2",
    "bd3lm_8": "decoder-only 8",
    "bd3lm_3": "decoder-only 3",
    "bd3lm_2": "decoder-only 2",
    "ar_8": "autoregression 8",
    "mdlm_8": "masked diffusion 8",
    "e2d2_2_6": "encoder 2, decoder 6",
    "e2d2_shared_kv": "shared keys, 8 and top 2",
    "e2d2_block_4": "6 and 2, blocks of 4",
    "e2d2_block_16": "6 and 2, blocks of 16",
}
NETWORKS = {
    "e2d2_6_2": "encoder_decoder-6-2",
    "bd3lm_8": "decoder_only-8",
    "bd3lm_3": "decoder_only-3",
    "bd3lm_2": "decoder_only-2",
}
_COLOURS = {
    "e2d2_6_2": "#c8553d", "bd3lm_8": "#0b3c5d", "bd3lm_3": "#1b6ca8", "bd3lm_2": "#79b4d9", "ar_8": "#3f7d20",
    "mdlm_8": "#7a5195", "e2d2_2_6": "#e0a458", "e2d2_shared_kv": "#a0522d", "e2d2_block_4": "#d98880",
    "e2d2_block_16": "#8a3324",
}  # fmt: skip


class BlockFigures(RunFigures):
    """Reads and draws the runs of a variant."""

    def frame(self, run: Path) -> pl.DataFrame:
        """Return all metrics of one run."""
        return pl.read_parquet(run / "metrics.parquet")

    def metric_names(self, arm: str) -> set[str]:
        """Metrics of an arm's first run."""
        return set(self.frame(next(iter(self.runs(arm).values())))["metric"])

    def mean(self, arm: str, metric: str, at: str = "") -> np.ndarray:
        """Value of each seed, items averaged."""
        return np.array(
            [rows.filter(pl.col("at") == at)["value"].mean() for _, rows in self.values(arm, metric)], dtype=float
        )

    def conditions(self, arm: str, metric: str) -> list[str]:
        """Conditions at which an arm has a metric, in the order written."""
        return list(dict.fromkeys(next(rows for _, rows in self.values(arm, metric))["at"]))

    def depths(self) -> list[tuple[int, str]]:
        """Decoder-only arms of this variant that were timed, by depth."""
        timed = {at.removeprefix("network=") for at in self.conditions(SPEED, "seconds_per_token")}
        arms = dict.fromkeys(arm for arm, _ in self.stage.evaluations)
        found = ((int(match[1]), arm) for arm in arms if (match := _DEPTH.fullmatch(arm)))
        return sorted(pair for pair in found if f"decoder_only-{pair[0]}" in timed)

    def seconds(self, seed: int, network: str) -> float:
        """Seconds per token of a network in one repeat."""
        at = f"network={network}"
        rows = dict(self.values(SPEED, "seconds_per_token"))[seed]
        return rows.filter(pl.col("at") == at)["value"].item()

    def one_by_one(self) -> str:
        """Condition of captions behind their own source, one token a step."""
        own = [at for at in self.conditions(METHOD, "caption_validity") if at.startswith("source=own,steps=")]
        return max(own, key=lambda at: int(at.rpartition("=")[2]))

    def frontier(self) -> None:
        """Bound against throughput and against operations."""
        timed = [arm for arm in NETWORKS if self.has(arm)]
        caption = (
            "Bound of the negative log-likelihood of held-out Shakespeare (nats per character, lower is better) "
            "against what writing costs: left, characters per second of cached sampling, one character a step, "
            "on one thread; right, matrix multiplications for each character written, where all arms with "
            "blocks of 8 are shown. Means over seeds, small dots single seeds; the line joins decoder-only "
            "depths. The paper's point: an encoder that runs once per block lies below the line. Depth is what "
            "is bought, so the line must fall from 2 to 8 layers."
        )
        with self.figure("frontier", caption, 1, 2, (8.6, 3.5), sharey=True) as (_, axes):
            speed, flops = axes[0]
            for axis, metric in ((speed, None), (flops, "sampling_flops")):
                arms = timed if metric is None else [
                    arm for arm in _LABELS if self.has(arm) and not arm.startswith(("e2d2_block", "ar", "mdlm"))
                ]  # fmt: skip
                places = {}
                for arm in arms:
                    bound = self.mean(arm, "nll_bound")
                    if metric is None:
                        x = self.mean(SPEED, "tokens_per_second", f"network={NETWORKS[arm]}")
                    else:
                        x = self.mean(arm, metric) / 1e6
                    places[arm] = (x.mean(), bound.mean())
                    axis.plot([x.mean()] * len(bound), bound, ".", ms=3, color=_COLOURS[arm])
                    axis.plot(*places[arm], "o", ms=6, color=_COLOURS[arm])
                    axis.annotate(_LABELS[arm], places[arm], (6, 3), textcoords="offset points", fontsize=7)
                line = [places[arm] for arm in places if arm.startswith("bd3lm")]
                axis.plot(*zip(*sorted(line), strict=True), color="#8a8a8a", linewidth=0.8, zorder=0)
                axis.margins(x=0.25)
            speed.set(xlabel="characters per second", ylabel="bound (nats per character)")
            flops.set(xlabel="million operations per character written")

    def evaluations(self) -> None:
        """Quality of texts against evaluations."""
        caption = (
            "Nats per character that an independent model of characters gives to texts written by each arm "
            "(lower is more like Shakespeare; dotted: held-out text itself), against denoising evaluations for "
            "each character. Points are 1, 2, 4 and 8 evaluations for a block of 8; open points write every "
            "character of a probability above 0.5 or 0.9 at once. Means over seeds. Texts that repeat "
            "themselves please the judge: right, the share of characters that are the same as the one before."
        )
        arms = [arm for arm in _LABELS if self.has(arm) and not arm.startswith("e2d2_block")]
        with self.figure("evaluations", caption, 1, 2, (8.6, 3.5)) as (figure, axes):
            for axis, metric in zip(axes[0], ("judged_nats", "repeated_bigrams"), strict=True):
                for arm in arms:
                    for key, style in (("steps", "o-"), ("threshold", "o")):
                        points = sorted(
                            (self.mean(arm, "network_evaluations", at).mean(), self.mean(arm, metric, at).mean())
                            for at in self.conditions(arm, metric)
                            if at.startswith(key)
                        )
                        if points:
                            look = {"markerfacecolor": "none"} if key == "threshold" else {"label": _LABELS[arm]}
                            axis.plot(*zip(*points, strict=True), style, ms=4, color=_COLOURS[arm], **look)
                axis.set_xlabel("evaluations per character")
            axes[0][0].axhline(self.mean(METHOD, "judged_nats_of_text").mean(), color="#222222", ls=":", lw=0.8)
            axes[0][0].set_ylabel("judged nats per character")
            axes[0][1].set_ylabel("share of repeated characters")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)

    def arms(self) -> None:
        """Bound of every arm, with the preceding blocks of another window beside it."""
        caption = (
            "Bound of the negative log-likelihood of held-out Shakespeare by arm (exact for autoregression), in "
            "nats per character: filled with a text's own preceding blocks, open with those of another window. "
            "Means over seeds, small dots single seeds. Dotted: counts of characters and of pairs of "
            "characters. Bounds of different blocks differ in tightness and are not to be compared."
        )
        arms = [arm for arm in _LABELS if self.has(arm)]
        with self.figure("bounds", caption, 1, 1, (6.0, 0.3 * len(arms) + 1.0)) as (_, axes):
            axis = axes[0][0]
            for row, arm in enumerate(reversed(arms)):
                own = self.mean(arm, "nll_bound")
                axis.plot(own, [row] * len(own), ".", ms=3, color=_COLOURS[arm])
                axis.plot(own.mean(), row, "o", ms=6, color=_COLOURS[arm])
                if len(gain := self.mean(arm, "context_gain")):
                    axis.plot((own + gain).mean(), row, "o", ms=6, color=_COLOURS[arm], markerfacecolor="none")
            for metric in ("unigram_nats", "bigram_nats"):
                axis.axvline(self.mean(arms[0], metric).mean(), color="#222222", ls=":", lw=0.8)
            axis.set_yticks(range(len(arms)), [_LABELS[arm] for arm in reversed(arms)])
            axis.set_xlabel("bound (nats per character)")

    def validity(self) -> None:
        """Validity of captions against speed and evaluations."""
        caption = (
            "Share of written captions that parse and say what their source says. Left: one word a step, "
            "against words per second of cached sampling on one thread; the line joins decoder-only depths. "
            "Right: against denoising evaluations for each word, 1, 2 and 4 for a block of 4; open points write "
            "every word of a probability above 0.9 at once, crosses are behind the source of another caption. "
            "Means over seeds, small dots single seeds."
        )
        arms = [arm for arm in NETWORKS if self.has(arm)]
        best = self.one_by_one()
        with self.figure("validity", caption, 1, 2, (8.6, 3.4), sharey=True) as (_, axes):
            speed, curve = axes[0]
            line = []
            for arm in arms:
                valid = self.mean(arm, "caption_validity", best)
                x = self.mean(SPEED, "tokens_per_second", f"network={NETWORKS[arm]}").mean()
                speed.plot([x] * len(valid), valid, ".", ms=3, color=_COLOURS[arm])
                speed.plot(x, valid.mean(), "o", ms=6, color=_COLOURS[arm])
                speed.annotate(_LABELS[arm], (x, valid.mean()), (6, 3), textcoords="offset points", fontsize=7)
                line += [(x, valid.mean())] if arm.startswith("bd3lm") else []
                for prefix, style, filled in (
                    ("source=own,steps", "o-", True), ("source=own,threshold", "o", False), ("source=wrong", "x", True)
                ):  # fmt: skip
                    points = sorted(
                        (
                            self.mean(arm, "network_evaluations", re.sub("source=[a-z]+,", "", at)).mean(),
                            self.mean(arm, "caption_validity", at).mean(),
                        )
                        for at in self.conditions(arm, "caption_validity")
                        if at.startswith(prefix)
                    )
                    look = {} if filled else {"markerfacecolor": "none"}
                    name = _LABELS[arm] if style == "o-" else None
                    if points:
                        curve.plot(*zip(*points, strict=True), style, ms=4, color=_COLOURS[arm], label=name, **look)
            speed.plot(*zip(*sorted(line), strict=True), color="#8a8a8a", linewidth=0.8, zorder=0)
            speed.margins(x=0.3)
            speed.set(xlabel="words per second", ylabel="share of valid captions", ylim=(0, None))
            curve.set_xlabel("evaluations per word")
            curve.legend(fontsize=7)

    def written(self, captions: bool) -> None:
        """Some of what the arms wrote."""
        arms = [arm for arm in _LABELS if self.has(arm)][:4]
        what = "captions behind the one given (above)" if captions else "texts drawn at temperature 1"
        caption = f"The first {what}, one token a step, first seed of each arm; a sign shown as ⏎ is the end of a line."
        rows = 3
        with self.figure("written", caption, len(arms), 1, (8.6, 0.95 * len(arms))) as (_, axes):
            for axis, arm in zip(axes[:, 0], arms, strict=True):
                frame = pl.read_parquet(next(iter(self.runs(arm).values())) / "written.parquet")
                settings = [name for name in dict.fromkeys(frame["setting"]) if name.endswith("steps")]
                shown = frame.filter(pl.col("setting") == settings[-1])[:rows]
                lines = [
                    f"{prompt}  →  {text}" if captions else text.replace("\n", "⏎")
                    for prompt, text in shown.select("prompt", "text").iter_rows()
                ]
                axis.text(0, 0.85, "\n".join(lines), fontsize=6.5, va="top", family="monospace", parse_math=False)
                axis.set_title(_LABELS[arm], fontsize=8, loc="left")
                axis.axis("off")
