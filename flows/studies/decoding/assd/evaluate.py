"""Measure what a trained network says of held-out text, how it fills gaps, or whether fillings have its law."""

from __future__ import annotations

from components.bases import load_model
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.decoding.assd import density, exactness, filling

_MEASURES = {"density": density, "filling": filling, "exactness": exactness}


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    model = load_model(stage.inputs["train"]).to(stage.device)
    table = MetricTable()
    _MEASURES[stage.params.measure].measure(stage, model, table)
    table.write(stage.output)
