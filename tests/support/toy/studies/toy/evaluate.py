"""Estimates the centre of the numbers of one arm."""

from __future__ import annotations

import importlib
import json

from flows.studies.toy.numbers import draw

from components.metrics.tables import MetricTable
from flows.studies.context import StageContext


def evaluate(stage: StageContext) -> None:
    """Write the error of the chosen rule on growing shares of the numbers."""
    params = stage.params
    rule = importlib.import_module(f"flows.studies.toy.rules.{params.rule}")
    if "train" in stage.inputs:
        numbers = json.loads((stage.inputs["train"] / "model.json").read_text(encoding="utf-8"))
    else:
        numbers = draw(params.steps, params.spread, stage.seed)
    table = MetricTable()
    for share in params.grid:
        kept = numbers[: max(1, len(numbers) // share)]
        table.add("error", abs(rule.estimate(kept)), unit="", at={"share": share}, samples=len(kept))
        table.add("count", len(kept), unit="", at={"share": share}, samples=len(kept))
    table.write(stage.output)
