"""Causal language models of the recipes that differ in their tokens only."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from components.bases import construct, specification
from components.language.causal_lm import CausalLM
from components.metrics.tables import CurveTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext


class Windows(Protocol):
    """Training windows of a corpus."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` windows, int64 (count, T)."""


def trained(
    stage: StageContext, windows: Windows, vocabulary_size: int, stream: int
) -> tuple[CausalLM, dict[str, Any], CurveTable]:
    """Train a causal model with rotary positions and tied embedding; sizes and steps are those of the stage's params.

    Args:
        stage: Of a recipe with context, width, layers, heads, batch, steps, learning_rate and warmup_steps.
        windows: What it learns from.
        vocabulary_size: Tokens, special ones included.
        stream: Random stream of the first weights.

    Returns:
        The model, its description (components.bases) and its curves.
    """
    params = stage.params
    description = specification(
        "components.language.causal_lm",
        vocabulary_size=vocabulary_size,
        context=params.context,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        tied=True,
        positions="rotary",
    )
    torch.manual_seed(derive_seed(stage.seed, stream))
    model = construct(description)
    curves = fit(
        model,
        lambda step, generator: windows.draw(params.batch, generator),
        lambda model, batch, generator: (model.loss(batch), {}),
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    return model, description, curves
