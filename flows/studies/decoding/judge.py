"""Figures of the decoding study."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from flows.declarations.resolve import resolve
from flows.studies.context import JudgeContext
from flows.studies.decoding.sources import shared
from flows.studies.figures import RunFigures

_CORRECTED, _DIRECT, _TRUTH, _BLIND = "#1b6ca8", "#c8553d", "#222222", "#8a8a8a"
_PAIRS = [("Maximum prefix encoding", "mpc", "direct_prompting"), ("BPE", "bpe_cover", "bpe_direct")]
_SIZES = {
    "Maximum Prefix Correction": (_CORRECTED, "mpc_x1", "mpc_x4", "mpc"),
    "direct prompting": (_DIRECT, "direct_x1", "direct_x4", "direct_prompting"),
}


def derive(stage: JudgeContext) -> None:
    """Draw the figures that the variant's arms allow."""
    figures = _Figures(stage)
    pairs = [pair for pair in _PAIRS if figures.has(*pair[1:])]
    if pairs:
        figures.transitions(pairs)
    if figures.has(*(arm for _, *arms in _SIZES.values() for arm in arms)):
        figures.data_size()
    if figures.has("mpc"):
        figures.calls()
    if figures.has("text_cover"):
        figures.divergence()


class _Figures(RunFigures):
    def _common_seeds(self, *arms: str) -> list[int]:
        """Seeds that every one of the arms has; arms may differ in how many they were given."""
        return sorted(set.intersection(*(set(self.runs(arm)) for arm in arms)))

    def transitions(self, pairs: list[tuple[str, str, str]]) -> None:
        seeds = self._common_seeds(*(arm for _, *arms in pairs for arm in arms))
        caption = (
            "Probability that the next character is A in each state of the chain, one chain per seed: the truth "
            "(bars), the average corrected estimate (circles) and the average of direct prompting (crosses) over the "
            "state's contexts. Corrected estimates sit on the truth; direct prompting is far off, because the end of "
            "a token gives away what does not follow."
        )
        size = (3.2 * len(seeds), 2.6 * len(pairs))
        with self.figure("transitions", caption, len(pairs), len(seeds), size, sharey=True) as (figure, axes):
            for row, (title, corrected, direct) in zip(axes, pairs, strict=True):
                for axis, seed in zip(row, seeds, strict=True):
                    self._states(axis, corrected, "truth", seed, "_", _TRUTH, "chain", 420)
                    self._states(axis, direct, "estimate", seed, "x", _DIRECT, "direct prompting", 40)
                    self._states(axis, corrected, "estimate", seed, "o", _CORRECTED, "corrected", 28)
                    axis.set_title(f"{title}, seed {seed}", fontsize=9)
                    axis.set_ylim(-0.03, 1.03)
                    axis.tick_params(axis="x", rotation=90, labelsize=7)
                row[0].set_ylabel("P(next = A | state)")
            for axis in axes[-1]:
                axis.set_xlabel("state (last characters)")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=0.5)

    def _states(self, axis: Axes, arm: str, metric: str, seed: int, marker: str, colour: str, label: str, area: float):
        frame = dict(self.values(arm, metric))[seed]
        states = frame["at"].str.strip_prefix("state=").to_list()
        filled = {} if marker != "o" else {"facecolors": "none", "edgecolors": colour}
        axis.scatter(states, frame["value"], area, marker=marker, label=label, **(filled or {"color": colour}))

    def data_size(self) -> None:
        caption = (
            "Error of the state probabilities (mean absolute, averaged over the states) against the characters the "
            "model was trained on; thin lines are seeds. More data removes the error of the corrected estimates and "
            "leaves that of direct prompting where the exact token distribution (dashed), the limit of infinite data, "
            "has it. The corrected estimates from that exact distribution are the truth up to rounding."
        )
        with self.figure("data-size", caption, 1, 1, (5.2, 3.6)) as (_, axes):
            axis = axes[0][0]
            for label, (colour, *arms) in _SIZES.items():
                sizes = [self._characters(arm) for arm in arms]
                seeds = self._common_seeds(*arms)
                found = [dict(self.values(arm, "mae")) for arm in arms]
                errors = np.array([[frames[seed]["value"].item() for seed in seeds] for frames in found])
                axis.plot(sizes, errors, color=colour, alpha=0.35, linewidth=0.8)
                axis.plot(sizes, errors.mean(1), "o-", color=colour, label=label)
            for arm, metric, colour, label in (
                ("exact_direct", "mae", _DIRECT, "direct prompting, exact token distribution"),
                ("mpc", "blind_mae", _BLIND, "always the overall frequency"),
            ):
                if self.has(arm):
                    level = np.mean([frame["value"].item() for _, frame in self.values(arm, metric)])
                    axis.axhline(level, color=colour, linestyle="--", linewidth=1, label=label)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel("training characters")
            axis.set_ylabel("mean absolute error (probability)")
            axis.legend(fontsize=7)

    def _characters(self, arm: str) -> int:
        stage = self.stage
        params = resolve(stage.paper, stage.variant, arm, stage.profile, "train")
        return shared(params.characters, params)

    def calls(self) -> None:
        caption = (
            "Model evaluations that one query of Maximum Prefix Correction takes, against the length of the queried "
            "string (uniformly random strings, all seeds), counted call by call. The number equals the tokens of the "
            "string, so on average it grows linearly; strings of one length differ in how many tokens they have."
        )
        with self.figure("calls", caption, 1, 1, (5.2, 3.4)) as (_, axes):
            axis = axes[0][0]
            calls = pl.concat([pl.read_parquet(run / "calls.parquet") for run in self.runs("mpc").values()])
            calls = calls.filter(pl.col("strings") == "random")
            axis.scatter(calls["length"], calls["calls"], 9, color=_CORRECTED, alpha=0.5, linewidths=0)
            ends = np.array([calls["length"].min(), calls["length"].max()])
            line = np.polynomial.Polynomial.fit(calls["length"].to_numpy(), calls["calls"].to_numpy(), 1)
            slope = line.convert().coef[-1]
            axis.plot(ends, line(ends), color=_TRUTH, linewidth=1, label=f"{slope:.2f} calls per character")
            axis.set_xlabel("length of the string (characters)")
            axis.set_ylabel("model calls")
            axis.legend()

    def divergence(self) -> None:
        caption = (
            "How far direct prompting is from the corrected next-character distribution on held-out text: share of "
            "contexts whose divergence is at most the given number of bits, for contexts that end inside a token of "
            "the full text and for contexts that end with one; one line per seed. What lies below 0.0001 bits is drawn "
            "there."
        )
        with self.figure("divergence", caption, 1, 1, (5.2, 3.4)) as (_, axes):
            axis = axes[0][0]
            for where, colour, label in (
                ("inside", _DIRECT, "cut inside a token"),
                ("end", _CORRECTED, "cut at its end"),
            ):
                for index, (_, frame) in enumerate(self.values("text_cover", "kl")):
                    bits = np.sort(frame.filter(pl.col("at") == f"cut={where}")["value"].to_numpy()).clip(min=1e-4)
                    share = np.arange(1, len(bits) + 1) / len(bits)
                    axis.step(bits, share, where="post", color=colour, alpha=0.7, label=None if index else label)
            axis.set_xscale("log")
            axis.set_xlabel("KL(corrected || direct) (bits)")
            axis.set_ylabel("share of contexts")
            axis.legend()
