"""Ask the language models of an arm's seed for bytes: behind prompts, around gaps, along texts, by enumeration."""

from __future__ import annotations

from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.decoding.byte_probabilities import exactness, gaps, prompts, texts
from flows.studies.decoding.byte_probabilities.passages import HeldOut
from flows.studies.decoding.byte_probabilities.predictors import asked_model
from flows.studies.decoding.sources import text_directory


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    table = MetricTable()
    params = stage.params
    held_out = HeldOut(text_directory(stage), params.passage_bytes)
    if params.query == "text":
        texts.measure(stage, held_out, table)
    else:
        model = asked_model(stage, params.models[0])
        if params.query != "token_psm":
            prompts.measure(stage, model, held_out, table)
        gaps.measure(stage, model, held_out, table)
    if params.query == "byte_exact":
        exactness.measure(stage, table)
    table.write(stage.output)
