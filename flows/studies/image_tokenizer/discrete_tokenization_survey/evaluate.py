"""Evaluate one arm of the survey, by the module of its task."""

from __future__ import annotations

import importlib

from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import MODULES, PACKAGE


def evaluate(stage: StageContext) -> None:
    """Measure one arm and write its metrics."""
    # By name, so that a change of one task makes only its arms stale.
    importlib.import_module(f"{PACKAGE}.{MODULES['evaluate'][stage.params.task]}").evaluate(stage)
