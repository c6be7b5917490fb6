"""Comparisons of PiToMe: what every arm loses, and in how many seeds the method beats ToMe beyond chance."""

from __future__ import annotations

import polars as pl

from components.metrics.bootstrap import mean_interval
from components.metrics.tables import MetricTable, condition
from components.training.determinism import derive_seed
from flows.studies.context import JudgeContext
from flows.studies.token_reduction.pitome.figures import METHOD, PARITY, TASKS, WHOLE, conditions
from flows.studies.token_reduction.pitome.token_figures import TokenFigures

_RESAMPLES = 2_000
_BOOTSTRAP = 41  # random stream of this stage


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures of a variant; return what needs several runs."""
    figures = _Comparisons(stage)
    if stage.variant == "clusters":
        figures.spectra()
        return {}
    if stage.variant == "questions":
        figures.questions()
        return {}
    figures.trade_off()
    figures.merged()
    figures.blocks()
    figures.settings()
    return figures.comparisons()


class _Comparisons(TokenFigures):
    def comparisons(self) -> dict[tuple[str, int], MetricTable]:
        """Return the drop of every arm, and in how many seeds the method beats ToMe beyond chance."""
        tables: dict[tuple[str, int], MetricTable] = {}
        for arm, seed in self.stage.evaluations:
            if arm != WHOLE:
                tables[arm, seed] = self._drops(arm, seed)
        for task in TASKS:
            wins = [self._wins(task, seed) for seed in self.runs(METHOD)]
            for seed in self.runs(METHOD):
                at = {"task": task}
                tables[METHOD, seed].add("bootstrap_wins", sum(wins), unit="seeds", at=at, samples=len(wins))
        return tables

    def _drops(self, arm: str, seed: int) -> MetricTable:
        table = MetricTable()
        if seed not in self.runs(WHOLE):
            return table
        both = self.rows(arm, seed, "accuracy").join(
            self.rows(WHOLE, seed, "accuracy"), on=("at", "sample"), suffix="_whole", maintain_order="left"
        )
        for (at,), rows in both.group_by("at", maintain_order=True):
            lost = rows["value_whole"] - rows["value"]
            table.add(
                "drop",
                lost.mean(),
                unit="points",
                at=conditions(at),
                samples=len(lost),
                variance=lost.var() / len(lost) if len(lost) > 1 else None,
            )
        return table

    def _wins(self, task: str, seed: int) -> bool:
        at = condition({"task": task})
        one, other = (
            self.rows(arm, seed, "mean_accuracy").filter(pl.col("at") == at).select("sample", "value")
            for arm in (METHOD, PARITY)
        )
        both = one.join(other, on="sample", suffix="_other", maintain_order="left")
        difference = (both["value"] - both["value_other"]).to_numpy()
        number = derive_seed(seed, _BOOTSTRAP, list(TASKS).index(task))
        return mean_interval(difference, _RESAMPLES, number)[0] > 0
