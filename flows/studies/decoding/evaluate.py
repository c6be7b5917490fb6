"""Ask a token model for characters: on the chain of its seed, or on the held-out part of a real text."""

from __future__ import annotations

from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.decoding import chain_protocol, text_protocol


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    table = MetricTable()
    protocol = chain_protocol if stage.params.source == "chain" else text_protocol
    protocol.measure(stage, table)
    table.write(stage.output)
