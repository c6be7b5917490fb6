"""Figures of byte-probabilities: bits behind a cut, completions, and an ensemble beside its members."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from components.metrics.tables import MetricTable, condition
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

_ARMS = {
    "byte_exact": ("exact bytes", "#1b6ca8"),
    "byte_fast": ("exact bytes, no truncation", "#7fb2d9"),
    "token_healing": ("token healing", "#d9a441"),
    "token_direct": ("tokens as encoded", "#c8553d"),
    "token_psm": ("tokens, prefix before suffix", "#8a5a83"),
}
_MEMBERS = {
    "member_bpe": ("BPE", "#d9a441"),
    "member_unigram": ("unigram", "#8a5a83"),
    "byte_ensemble": ("ensemble", "#1b6ca8"),
}
_DARK = "#222222"


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures that the variant's arms allow; return the best completion rate of each seed."""
    figures = _Figures(stage)
    asked = [arm for arm in _ARMS if figures.has(arm)]
    prompted = [arm for arm in asked if arm != "token_psm"]
    if prompted:
        figures.bits_behind_cut(prompted)
    if asked:
        figures.completions(asked)
    members = [arm for arm in _MEMBERS if figures.has(arm)]
    if len(members) == len(_MEMBERS):
        figures.ensemble(members)
    return figures.best_filling(asked)


class _Figures(RunFigures):
    def means(self, arm: str, metric: str, at: dict | None = None) -> dict[int, float]:
        """Return the mean over items of a metric at a condition, by seed; seeds without it are left out."""
        found = {}
        for seed, frame in self.values(arm, metric):
            values = frame.filter(pl.col("at") == condition(at))["value"]
            if len(values):
                found[seed] = values.mean()
        return found

    def best_filling(self, arms: list[str]) -> dict[tuple[str, int], MetricTable]:
        """Return best_middle_match, written down with the method."""
        rates = [self.means(arm, "middle_match") for arm in arms]
        tables = {}
        for seed in self.runs("byte_exact"):
            table = MetricTable()
            best = max(rate[seed] for rate in rates if seed in rate)
            samples = dict(self.values("byte_exact", "middle_match"))[seed].filter(pl.col("at") == "").height
            table.add("best_middle_match", best, unit="%", samples=samples)
            tables["byte_exact", seed] = table
        return tables

    def bits_behind_cut(self, arms: list[str]) -> None:
        caption = (
            "Bits of the true next byte behind a prompt of Python source that stops inside a token (0 bytes behind the "
            "cut) and behind each longer prompt, all bytes before it given; thin lines are seeds. The crosses on the "
            "right are prompts that stop at the end of a token, where the encoded prompt gives away that a token ends "
            "and so has the fewest bits. Inside a token that same message is false: it says that the bytes which "
            "follow do not follow."
        )
        first = dict(self.values(arms[0], "next_byte_bits"))
        inside = {at for frame in first.values() for at in frame["at"].unique() if at.startswith("cut=inside")}
        distances = sorted(int(at.rpartition("=")[2]) for at in inside)
        end = distances[-1] + 2
        with self.figure("bits-behind-cut", caption, 1, 1, (6.4, 3.8)) as (_, axes):
            axis = axes[0][0]
            for arm in arms:
                label, colour = _ARMS[arm]
                lines = [self.means(arm, "next_byte_bits", {"cut": "inside", "distance": d}) for d in distances]
                values = np.array([[line[seed] for line in lines] for seed in sorted(lines[0])])
                axis.plot(distances, values.T, color=colour, alpha=0.3, linewidth=0.7)
                # Where truncation hardly matters the two byte arms lie on each other; dashes let both be seen.
                line = "--" if arm == "byte_fast" else "o-"
                axis.plot(distances, values.mean(0), line, color=colour, markersize=3, label=label)
                at_end = list(self.means(arm, "next_byte_bits", {"cut": "end", "distance": 0}).values())
                axis.plot([end] * len(at_end), at_end, "x", color=colour, markersize=5)
            shown = distances[:: max(1, len(distances) // 8)]
            axis.set_xticks([*shown, end], [*map(str, shown), "at an end"])
            axis.set_ylim(bottom=0)
            axis.set_xlabel("bytes behind a cut inside a token")
            axis.set_ylabel("bits of the true next byte")
            axis.legend(fontsize=7, ncols=2)

    def completions(self, arms: list[str]) -> None:
        caption = (
            "Greedy completions that are exactly the true text, in percent; bars are means over seeds, dots single "
            "seeds. Left: a span of a few characters taken out of a line of Python source, filled in with the text "
            "before and behind it given, over as many bytes as the span has. Middle: the same, by whether the text in "
            "front of the span stops inside a token. Right: the rest of the line behind a prompt that stops inside a "
            "token."
        )
        panels = [
            ("gaps", "middle_match", [("", None)]),
            ("gaps by the end of the prefix", "middle_match", [("inside", "inside"), ("end", "end")]),
            ("rest of the line", "rest_of_line_match", [("", None)]),
        ]
        with self.figure("completions", caption, 1, 3, (9.6, 3.4)) as (figure, axes):
            for axis, (title, metric, parts) in zip(axes[0], panels, strict=True):
                for group, (_, where) in enumerate(parts):
                    self._bars(axis, arms, metric, {"prefix": where} if where else None, group)
                ticks = [f"{name} of a token" if name == "end" else f"{name} a token" for name, _ in parts]
                axis.set_xticks(range(len(parts)), ticks if len(parts) > 1 else [""])
                axis.set_title(title, fontsize=9)
            axes[0][0].set_ylabel("exact match (%)")
            handles, labels = axes[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(arms), fontsize=7)

    def _bars(self, axis: Axes, arms: list[str], metric: str, at: dict | None, group: int) -> None:
        width = 0.8 / len(arms)
        for index, arm in enumerate(arms):
            label, colour = _ARMS[arm]
            values = list(self.means(arm, metric, at).values())
            place = group + (index - (len(arms) - 1) / 2) * width
            axis.bar(place, np.mean(values) if values else 0.0, width * 0.9, color=colour, label=label)
            axis.plot([place] * len(values), values, ".", color=_DARK, markersize=3)

    def ensemble(self, arms: list[str]) -> None:
        caption = (
            "Two language models of Python source whose tokens differ, and the mean of their next-byte distributions. "
            "Left: bits per byte of the same held-out texts, by seed. Right: bits per byte that the ensemble saves "
            "against each member on single texts, weighted by their length, all seeds; to the right of the line the "
            "ensemble is better."
        )
        with self.figure("ensemble", caption, 1, 2, (8.0, 3.3)) as (_, axes):
            left, right = axes[0]
            frames = {arm: dict(self.values(arm, "bits_per_byte")) for arm in arms}
            seeds = sorted(set.intersection(*(set(found) for found in frames.values())))
            for arm in arms:
                label, colour = _MEMBERS[arm]
                values = [frames[arm][seed]["value"].mean() for seed in seeds]
                left.plot(range(len(seeds)), values, "o", color=colour, markersize=7, label=label)
            left.set_xlim(-0.5, len(seeds) - 0.5)
            left.set_xticks(range(len(seeds)), [f"seed {seed}" for seed in seeds])
            left.set_ylabel("bits per byte")
            left.margins(y=0.15)
            left.grid(axis="y", linewidth=0.4, alpha=0.6)
            left.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.14))
            gains = {arm: self._gains(frames["byte_ensemble"], frames[arm], seeds) for arm in arms[:-1]}
            ends = np.concatenate(list(gains.values()))
            edges = np.linspace(ends.min(), ends.max() + 1e-9, 40)
            for arm, values in gains.items():
                label, colour = _MEMBERS[arm]
                right.hist(values, edges, color=colour, alpha=0.6, label=f"against {label}")
            right.axvline(0, color=_DARK, linewidth=1)
            right.set_xlabel("bits per byte saved on a text")
            right.set_ylabel("texts")
            right.legend(fontsize=7)

    def _gains(self, ensemble: dict, member: dict, seeds: list[int]) -> np.ndarray:
        return np.concatenate([(member[seed]["value"] - ensemble[seed]["value"]).to_numpy() for seed in seeds])
