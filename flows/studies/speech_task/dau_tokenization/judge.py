"""Figures of tokens over phonemes and units, and whether a comparison changed its sign late in the run."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from components.metrics.tables import MetricTable, condition
from flows.declarations.resolve import resolve
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

_BASE, _MERGED = "g2p_base", "g2p_bpe512"
_FAMILIES = {
    "g2p": ("per", {"progress": 100}, "phoneme error rate (%)", "phonemes"),
    "g2dau": ("uer", {"text": "own"}, "unit error rate (%)", "units"),
    "lm": ("bits_per_unit", {"model": "network"}, "bits per base unit", "units"),
}
_KINDS = {"phonemes": "#1b6ca8", "units": "#c8553d", "runs": "#8a8a8a"}
_LABELS = {"phonemes": "phonemes", "units": "units, runs made one", "runs": "units, runs kept"}


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return, for every seed, how often the difference of phoneme error rates changed its sign."""
    figures = _Figures(stage)
    if figures.has("balance"):
        figures.sizes()
    return figures.turns() if figures.has(_BASE, _MERGED) else {}


class _Figures(RunFigures):
    def turns(self) -> dict[tuple[str, int], MetricTable]:
        """Return the number of sign changes between the places of the last quarter at which errors were counted."""
        means = {
            arm: {seed: self._by_progress(frame) for seed, frame in self.values(arm, "per")} for arm in (_BASE, _MERGED)
        }
        tables = {}
        for seed in sorted(set(means[_BASE]) & set(means[_MERGED])):
            base, merged = (means[arm][seed] for arm in (_BASE, _MERGED))
            signs = [np.sign(base[place] - merged[place]) for place in sorted(base)]
            table = tables[_MERGED, seed] = MetricTable()
            turned = sum(one != other for one, other in itertools.pairwise(signs))
            table.add("sign_turns", float(turned), unit="", samples=len(signs))
        return tables

    def _by_progress(self, frame: pl.DataFrame) -> dict[int, float]:
        means = frame.group_by("at").agg(pl.col("value").mean())
        return {int(at.partition("=")[2]): value for at, value in means.iter_rows()}

    def sizes(self) -> None:
        caption = (
            "What merging base symbols does, against the number of tokens. Left: tokens over base symbols; second: "
            "how evenly tokens are used (entropy over its maximum), of training sequences, for phonemes of phrases "
            "and for units of speech with runs of equal ones made one or kept. Then errors of text to phonemes and "
            "text to units after expansion, and bits per base unit of language models at equal operations; points "
            "are seeds, the line their mean, dashed the Kneser-Ney bigram of the same units. Triangles are controls: "
            "pairs drawn at random, and unigram tokens."
        )
        with self.figure("sizes", caption, 1, 5, (15, 3.3)) as (figure, axes):
            row = axes[0]
            self._statistics(row[0], "corpus_length_ratio", "tokens per base symbol")
            self._statistics(row[1], "evenness", "evenness of tokens")
            for axis, task in zip(row[2:], _FAMILIES, strict=True):
                self._task(axis, task)
            for axis in row:
                axis.set_xscale("log", base=2)
                axis.set_xlabel("tokens")
            figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)

    def _statistics(self, axis: Axes, metric: str, label: str) -> None:
        ((_, frame),) = list(self.values("balance", metric))[:1]
        points: dict[str, list[tuple[int, float]]] = {}
        for at, value in frame.select("at", "value").iter_rows():
            keys = dict(part.split("=") for part in at.split(","))
            points.setdefault(keys["symbols"], []).append((int(keys["vocabulary"]), value))
        for kind, colour in _KINDS.items():
            pairs = sorted(points.get(kind, []))
            axis.plot(*zip(*pairs, strict=True), "o-", color=colour, markersize=3, label=_LABELS[kind])
        axis.set_ylabel(label)

    def _task(self, axis: Axes, task: str) -> None:
        metric, at, label, symbols = _FAMILIES[task]
        line = []
        for arm in self.stage.paper.arms_of(self.stage.variant):
            params = resolve(self.stage.paper, self.stage.variant, arm, self.stage.profile, "evaluate")
            if params.task != task or not self.has(arm):
                continue
            found = [
                frame.filter(pl.col("at") == condition(at))["value"].mean() for _, frame in self.values(arm, metric)
            ]
            size = params.vocabulary or self._base_size(symbols)
            plain = self._is_plain(params)
            axis.plot([size] * len(found), found, "o" if plain else "^", color=_KINDS[symbols], alpha=0.5, markersize=4)
            if plain:
                line.append((size, float(np.mean(found))))
        if line:
            axis.plot(*zip(*sorted(line), strict=True), color=_KINDS[symbols])
        if task == "lm" and self.has("lm_base"):
            level = self._bigram()
            axis.axhline(level, color="#222222", linestyle="--", linewidth=0.9)
        axis.set_ylabel(label)

    def _bigram(self) -> float:
        at = condition({"model": "bigram"})
        frames = [frame.filter(pl.col("at") == at) for _, frame in self.values("lm_base", "bits_per_unit")]
        return float(np.mean([frame["value"].mean() for frame in frames]))

    def _is_plain(self, params) -> bool:
        usual = params.equal_flops == (params.task == "lm" and params.vocabulary > 0)
        return params.merging == "bpe" and params.dedup and not params.cross_word and usual

    def _base_size(self, symbols: str) -> int:
        ((_, frame),) = list(self.values("balance", "evenness"))[:1]
        sizes = [dict(part.split("=") for part in at.split(",")) for at in frame["at"]]
        return min(int(each["vocabulary"]) for each in sizes if each["symbols"] == symbols)
