"""The model of `params/catalogue.yaml`: the papers of the platform, whether they are built already or not."""

from __future__ import annotations

from typing import Literal

from flows.declarations.paper import Family, Slug
from flows.declarations.validation import Declaration


class CatalogueEntry(Declaration):
    """The facts about one paper that never change."""

    title: str
    """Title of the paper."""
    family: Family
    """Which of the seven families it belongs to."""
    kind: Literal["method", "analysis", "survey", "benchmark", "report"]
    """What sort of paper it is."""
    study: Slug
    """Which experiment form runs it."""
