"""Train one arm of the survey, by the module of its task."""

from __future__ import annotations

import importlib

from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import MODULES, PACKAGE


def train(stage: StageContext) -> None:
    """Train one arm and write its model and curves."""
    # By name, so that a change of one task makes only its arms stale.
    importlib.import_module(f"{PACKAGE}.{MODULES['train'][stage.params.task]}").train(stage)
