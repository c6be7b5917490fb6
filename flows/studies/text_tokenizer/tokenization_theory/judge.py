"""Figures of the paper, and the numbers that compare a transformer on characters with its tokenised twin."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from components.data.markov import Chain
from components.data.switching_chain import block_entropy, character_entropy
from components.metrics.tables import MetricTable
from flows.declarations.resolve import resolve
from flows.studies.context import JudgeContext
from flows.studies.text_tokenizer.judge import TextFigures
from flows.studies.text_tokenizer.looks import Looks
from flows.studies.text_tokenizer.markov_sources import chain_of
from flows.studies.text_tokenizer.transformer import HALF, QUARTER

_TWINS = {"char_k1": "bpe_k1", "char_k2": "bpe_k2", "char_k4": "bpe_k4"}
_KINDS = {
    "char": ("#c8553d", "characters"),
    "bpe": ("#1b6ca8", "BPE tokens"),
    "lzw": ("#3a7d44", "LZW tokens"),
}
_UNIGRAMS = {
    "fixed_ngram_unigram": ("#8a8a8a", "all strings of one length"),
    "lzw_unigram": ("#3a7d44", "LZW, greedy"),
    "bpe_unigram": ("#1b6ca8", "BPE, merge order"),
}
_ENCODERS = {
    "lzw": ("#3a7d44", "lzw_unigram", "lzw_minimal_encoder"),
    "BPE": ("#1b6ca8", "bpe_greedy_encoder", "bpe_minimal_encoder"),
}
_TITLES = {"k1": "order 1", "k2": "order 2", "k4": "order 4"}


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures that the variant's arms allow; return how late each character model is."""
    figures = _Figures(stage)
    if figures.has("text_bpe"):
        figures.sizes([arm for arm in ("text_bpe", "text_unigram", "text_wordpiece") if figures.has(arm)])
        return {}
    figures.gaps()
    figures.unigram_losses()
    figures.encoder_effect()
    figures.behaviour()
    return figures.delays()


class _Figures(TextFigures):
    def _source(self, arm: str, seed: int) -> Chain:
        params = resolve(self.stage.paper, self.stage.variant, arm, self.stage.profile, "train")
        return chain_of(params.source, seed)

    def _looks(self, arm: str) -> dict[int, Looks]:
        """What was seen of the trainings of an arm, by seed."""
        found = {}
        for (name, seed), run in sorted(self.stage.trainings.items()):
            if name == arm:
                chain = self._source(arm, seed)
                curves = pl.read_parquet(run / "curves.parquet")
                found[seed] = Looks.of(curves, chain.entropy_rate(), character_entropy(chain))
        return found

    def delays(self) -> dict[tuple[str, int], MetricTable]:
        """Compare every character model with its tokenised twin of the same seed."""
        tables = {}
        for arm, twin in _TWINS.items():
            theirs = self._looks(twin)
            for seed, looks in self._looks(arm).items():
                table, other = MetricTable(), theirs[seed]
                late = looks.characters_until(HALF, looks.characters[-1])
                early = other.characters_until(HALF, other.characters[-1])
                samples = len(looks.steps)
                table.add("log_delay", math.log(late / early), unit="", samples=samples)
                matched = other.characters_until(QUARTER, other.characters[-1])
                table.add("matched_gap", looks.gap_at(matched), unit="", samples=samples)
                tables[arm, seed] = table
        return tables

    def gaps(self) -> None:
        caption = (
            "What is left to learn, against the characters learned from: 1 is the loss of the best model of "
            "independent characters, 0 the entropy rate of the source, which no model can beat; one line per seed. "
            "From order 2 on a transformer that reads characters stays at 1 for long. Tokens carry much of the "
            "dependence, so the same network on tokens has little left to learn from the start."
        )
        with self.figure("gaps", caption, 1, 3, (9.6, 3.2), sharey=True) as (figure, axes):
            for axis, (source, title) in zip(axes[0], _TITLES.items(), strict=True):
                for kind, (colour, label) in _KINDS.items():
                    for index, looks in enumerate(self._looks(f"{kind}_{source}").values()):
                        name = None if index else label
                        axis.plot(looks.characters, looks.gap, color=colour, alpha=0.75, linewidth=1, label=name)
                axis.axhline(HALF, color="#bbbbbb", linewidth=0.7, linestyle=":")
                _characters(axis)
                axis.set_ylim(-0.05, 1.1)
                axis.set_title(f"switching source of {title}", fontsize=9)
            axes[0][0].set_ylabel("gap to the entropy rate")
            # All three kinds of tokens stand in the panel of order 2.
            figure.legend(*axes[0][1].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def unigram_losses(self) -> None:
        caption = (
            "Loss of the best model of independent tokens against the size of the dictionary (thin lines: seeds), "
            "between the loss of independent characters (upper dashed line) and the entropy rate (lower dashed line). "
            "Learned dictionaries come near the entropy rate; all strings of one length need exponentially many "
            "tokens. The grey curve through their measured losses is the closed form, block entropy over length."
        )
        sources = [("k1", "order 1, p = q = 0.8"), ("k2", "order 2, p = q = 0.8"), ("skewed", "order 1, p = q = 0.99")]
        with self.figure("unigram-losses", caption, 1, 3, (9.6, 3.4)) as (figure, axes):
            for axis, (source, title) in zip(axes[0], sources, strict=True):
                chain = chain_of(source, 0)
                for arm, (colour, label) in _UNIGRAMS.items():
                    blocks = arm == "fixed_ngram_unigram"
                    style = {"linestyle": "none"} if blocks else {}
                    self.line(axis, arm, "nats_per_character", colour, label, {"source": source}, **style)
                lengths = np.arange(1, 12)
                closed = [block_entropy(chain, length) / length for length in lengths.tolist()]
                axis.plot(2.0**lengths, closed, color="#8a8a8a", linewidth=0.8)
                for value in (chain.entropy_rate(), character_entropy(chain)):
                    axis.axhline(value, color="#222222", linewidth=0.8, linestyle="--")
                axis.set_xscale("log", base=2)
                axis.set_title(title, fontsize=9)
                axis.set_xlabel("tokens in the dictionary")
            axes[0][0].set_ylabel("loss (nats per character)")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def encoder_effect(self) -> None:
        caption = (
            "The same dictionary read by two encoders: excess over the entropy rate of the best unigram model when the "
            "longest match is taken, divided by the excess when the fewest tokens are (thin lines: seeds). Outside the "
            "grey band, from 0.9 to 1.1, the encoder matters as much as a change of the dictionary."
        )
        with self.figure("encoders", caption, 1, 2, (6.8, 3.2), sharey=True) as (_, axes):
            for axis, source in zip(axes[0], ("k1", "k2"), strict=True):
                for name, (colour, greedy, minimal) in _ENCODERS.items():
                    self._ratio(axis, source, greedy, minimal, colour, name.upper())
                axis.axhspan(0.9, 1.1, color="#dddddd", zorder=0, linewidth=0)
                axis.set_xscale("log", base=2)
                axis.set_title(f"switching source of {_TITLES[source]}", fontsize=9)
                axis.set_xlabel("tokens in the dictionary")
            axes[0][0].set_ylabel("excess: longest match / fewest tokens")
            axes[0][0].legend()

    def _ratio(self, axis: Axes, source: str, over: str, under: str, colour: str, label: str) -> None:
        lower = dict(self.values(under, "excess_nats"))
        ratios = []
        # Arms may differ in how many seeds they were given.
        for seed, frame in self.values(over, "excess_nats"):
            if seed not in lower:
                continue
            both = frame.join(lower[seed], on="at").filter(pl.col("at").str.starts_with(f"source={source},"))
            size = pl.col("at").str.split("=").list.last().cast(pl.Int64).alias("size")
            ratios.append(both.select(size, (pl.col("value") / pl.col("value_right")).alias("ratio")).sort("size"))
            axis.plot(ratios[-1]["size"], ratios[-1]["ratio"], color=colour, alpha=0.3, linewidth=0.7)
        means = pl.concat(ratios).group_by("size").agg(pl.col("ratio").mean()).sort("size")
        axis.plot(means["size"], means["ratio"], "o-", markersize=3, color=colour, label=label)

    def behaviour(self) -> None:
        caption = (
            "Which simple model the tokenised transformer behaves like while it learns: mean divergence of its "
            "next-token distribution from the unigram model of tokens and from the true conditional distribution, one "
            "line per seed. At first it comes to the unigram; then it leaves it for the truth."
        )
        arms = {"bpe_k2": "BPE, 20 tokens, order 2", "bpe_k4": "BPE, 100 tokens, order 4"}
        with self.figure("behaviour", caption, 1, 2, (6.8, 3.4)) as (figure, axes):
            for axis, (arm, title) in zip(axes[0], arms.items(), strict=True):
                for index, looks in enumerate(self._looks(arm).values()):
                    for series, colour, label in (
                        (looks.kl_unigram, "#c8553d", "token unigram"),
                        (looks.kl_truth, "#1b6ca8", "true conditional"),
                    ):
                        name = None if index else f"KL(model || {label})"
                        axis.plot(looks.characters, series, color=colour, linewidth=1, alpha=0.75, label=name)
                _characters(axis)
                axis.set_yscale("log")
                axis.set_title(title, fontsize=9)
            axes[0][0].set_ylabel("divergence (nats per token)")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _characters(axis: Axes) -> None:
    """Count training characters along the axis, with powers of ten as its only labels."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("training characters")
