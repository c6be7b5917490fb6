"""Evaluate one arm: nothing is trained, networks that were trained on all tokens read fewer."""

from __future__ import annotations

from flows.studies.context import StageContext
from flows.studies.token_reduction.pitome import answers, clusters, pictures


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    {"pictures": pictures.measure, "clusters": clusters.measure, "questions": answers.measure}[stage.params.task](stage)
