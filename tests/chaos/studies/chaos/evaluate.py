"""Measures the network of one arm."""

from __future__ import annotations

import torch
from flows.studies.chaos.table import network, table

from components.metrics.tables import MetricTable
from components.training.weights import load_weights
from flows.studies.context import StageContext


def evaluate(stage: StageContext) -> None:
    """Write the error over the table."""
    contexts, probabilities = table(stage.inputs["data/markov"])
    model = network(contexts.shape[1], stage.params.width)
    load_weights(model, stage.inputs["train"] / "model.safetensors")
    with torch.no_grad():
        error = (model(contexts) - probabilities).square().mean().sqrt()
    metrics = MetricTable()
    metrics.add("error", float(error), unit="", samples=len(contexts))
    metrics.write(stage.output)
