"""Parameters of the recipe `toy_constant`."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """A constant."""

    value: float = Field(1.0, gt=0)
    """The constant."""
