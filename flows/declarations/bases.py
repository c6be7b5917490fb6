"""The model of `params/bases.yaml`: artefacts that are trained once and used by many papers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from flows.declarations.paper import Names, Resources
from flows.declarations.validation import Declaration


class Gate(Declaration):
    """The bar that a base must clear before anything may be built on it."""

    metric: str
    """Metric that the recipe writes."""
    above: float | None = None
    """The metric lies above this."""
    below: float | None = None
    """The metric lies below this."""

    @model_validator(mode="after")
    def _one_bar(self) -> Gate:
        if (self.above is None) == (self.below is None):
            raise ValueError("give exactly one of 'above' and 'below'.")
        return self

    def holds(self, value: float) -> bool:
        """Tell whether a measured value clears the bar."""
        return value > self.above if self.above is not None else value < self.below


class Base(Declaration):
    """One shared base artefact."""

    title: str = Field(min_length=1)
    """What it is, in words."""
    recipe: str
    """Module of flows/studies/bases that trains it."""
    data: Names = ()
    """Names in data.yaml."""
    bases: Names = ()
    """Names in bases.yaml that it is built on."""
    seed: int = Field(0, ge=0)
    """Seed of its training."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the recipe, where they differ from its defaults."""
    gates: Annotated[tuple[Gate, ...], Field(strict=False)] = ()
    """The bars it must clear, all of them."""
    minutes: float | None = Field(None, gt=0)
    """Budget on two cores, in minutes."""
    resources: Resources = Resources()
    """What its training reserves."""
