"""Draws the numbers of one arm."""

from __future__ import annotations

import json
import time

from flows.studies.toy.numbers import draw

from components.metrics.tables import CurveTable
from flows.studies.context import StageContext


def train(stage: StageContext) -> None:
    """Write the drawn numbers and their running sum."""
    params = stage.params
    time.sleep(params.pause)
    numbers = draw(params.steps, params.spread, stage.seed)
    curves = CurveTable()
    for step, number in enumerate(numbers):
        curves.add("number", step, number)
    curves.write(stage.output)
    (stage.output / "model.json").write_text(json.dumps(numbers), encoding="utf-8")
