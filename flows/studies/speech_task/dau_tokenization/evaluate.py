"""Evaluation of an arm: errors over base symbols, bits per base unit, time, or statistics."""

from __future__ import annotations

from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization import balance, sequences, speed, unit_model

_TASKS = {
    "g2p": sequences.evaluate,
    "g2dau": sequences.evaluate,
    "lm": unit_model.evaluate,
    "speed": speed.evaluate,
    "balance": balance.evaluate,
}


def evaluate(stage: StageContext) -> None:
    """Evaluate an arm as its task asks."""
    _TASKS[stage.params.task](stage)
