"""Judged metrics over the categories inside the gate, and figures."""

from __future__ import annotations

import polars as pl

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.language_model.answer_figures import AnswerFigures

# The gate of the specification: plain cross entropy knows the size of the answers and still errs, on every seed.
CANDIDATES = ("add_sub", "div")
LARGEST_ERROR, EXACT_RANGE = 0.5, (0.03, 0.80)
SPLIT = "interpolation"
LABELS = {
    "ce": "cross entropy",
    "ce_ntl_was": "+ Wasserstein",
    "ce_ntl_mse": "+ squared error",
    "ce_ntl_shuffled": "+ Wasserstein,\nshuffled digits",
    "ce_gauss": "Gaussian labels",
    "reg_head": "regression head",
    "ridge": "ridge",
    "blind": "blind",
    "rt": "digits with places",
    "xval": "xVal",
}


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable] | None:
    """Draw the figures; for questions, also pool nerr and exact match over the categories inside the gate."""
    figures = AnswerFigures(stage, LABELS)
    if figures.has("reg_head"):
        figures.regression()
        return None
    frames = {run: pl.read_parquet(path / "metrics.parquet") for run, path in stage.evaluations.items()}
    categories = inside_gate([frame for (arm, _), frame in frames.items() if arm == "ce"])
    figures.errors(SPLIT, categories)
    figures.digits(SPLIT, CANDIDATES)
    figures.false_minimum("ce_ntl_mse", ["ce", "ce_ntl_was"])
    return {run: pooled(frame, categories) for run, frame in frames.items()}


def inside_gate(runs: list[pl.DataFrame]) -> tuple[str, ...]:
    """Return the candidates in which plain cross entropy is inside the gate on every seed."""

    def mean(frame: pl.DataFrame, metric: str, category: str) -> float:
        return _items(frame, metric, (category,))["value"].mean()

    return tuple(
        category
        for category in CANDIDATES
        if all(
            mean(frame, "nerr", category) <= LARGEST_ERROR
            and EXACT_RANGE[0] <= mean(frame, "exact_match", category) <= EXACT_RANGE[1]
            for frame in runs
        )
    )


def pooled(frame: pl.DataFrame, categories: tuple[str, ...]) -> MetricTable:
    """Return a run's metrics over the questions of all categories inside the gate, or of all candidates without any.

    In the latter case the number of judged categories, which the claims have as their gate, says that nothing counts.
    """
    table = MetricTable()
    table.add("judged_categories", len(categories), unit="categories", samples=len(CANDIDATES))
    for metric, name, unit in (("nerr", "judged_nerr", ""), ("exact_match", "judged_exact", "share")):
        found = _items(frame, metric, categories or CANDIDATES)
        normaliser = found["normaliser"][0]
        items = found["sample"].to_list()
        table.add_items(name, found["value"].to_list(), unit=unit, items=items, normaliser=normaliser)
    return table


def _items(frame: pl.DataFrame, metric: str, categories: tuple[str, ...]) -> pl.DataFrame:
    at = [f"category={category},split={SPLIT}" for category in categories]
    return frame.filter(pl.col("metric") == metric, pl.col("at").is_in(at))
