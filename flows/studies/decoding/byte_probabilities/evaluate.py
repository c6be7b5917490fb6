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
    directory = text_directory(stage)
    if params.query == "text":
        texts.measure(stage, HeldOut(directory, params.scored_passage_bytes), table)
    else:
        held_out = HeldOut(directory, params.passage_bytes)
        model = asked_model(stage, params.models[0])
        if params.query != "token_psm":
            prompts.measure(stage, model, held_out, table)
        gaps.measure(stage, model, held_out, table)
    if params.query == "byte_exact":
        exactness.measure(stage, table)
    table.write(stage.output)
