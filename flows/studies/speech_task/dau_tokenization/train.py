"""Training of an arm: text to phonemes or units, or a model of units."""

from __future__ import annotations

from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization import sequences, unit_model


def train(stage: StageContext) -> None:
    """Train an arm as its task asks."""
    (unit_model.train if stage.params.task == "lm" else sequences.train)(stage)
