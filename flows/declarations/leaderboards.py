"""The model of `params/leaderboards.yaml`: what is ranked side by side, on which data, at which budget and rate.

No number of a result stands there. A paper joins a leaderboard when it has run on the data with the parameters that
are asked for; its metrics, their units and directions come from the study's declaration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from components.errors import did_you_mean
from flows.declarations.arithmetic import names
from flows.declarations.document import Location
from flows.declarations.metric import Metric
from flows.declarations.paper import Condition, Names, Scalar, Slug
from flows.declarations.study import StudyError, UnknownStudy, load_study
from flows.declarations.validation import Declaration


class Rate(Declaration):
    """What an entry spends, the horizontal axis: a metric, or arithmetic in its parameters and conditions."""

    says: str = Field(min_length=1)
    """What is spent, in words."""
    unit: str
    """Unit of the rate."""
    better: Literal["lower", "higher"] = "lower"
    """Which direction costs less."""
    metric: str | None = None
    """Metric that is the rate."""
    formula: str | None = None
    """Arithmetic such as `k * log2(codebook_size) / image_side ** 2`, in parameters of the arm and condition keys."""
    unless: dict[str, str] = Field(default_factory=dict)
    """Parameter to take for a condition key that a metric does not have, such as {k: tokens}."""

    @field_validator("formula")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            names(value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Rate:
        if (self.metric is None) == (self.formula is None):
            raise ValueError("give exactly one of 'metric' (a measured rate) and 'formula' (a computed one).")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the formula: parameters of the arm or keys of a condition."""
        return names(self.formula) if self.formula is not None else ()


class Leaderboard(Declaration):
    """One leaderboard: metrics of a study on one data set, among entries that were given the same budget."""

    title: str = Field(min_length=1)
    """What is ranked."""
    says: str = ""
    """What a reader must know to read it."""
    study: Slug
    """The study whose papers join."""
    data: str | None = None
    """Name in data.yaml; variants that use it join. Absent where the study draws its data itself."""
    where: dict[str, Scalar] = Field(default_factory=dict)
    """Parameters that every entry has in common, with their values."""
    same: Names = ()
    """Parameters that make the budget; entries that differ in one of them are ranked apart."""
    at: Condition | None = None
    """Only at this condition; every condition has a ranking of its own where this is absent."""
    rate: Rate | None = None
    """What an entry spends; ranks hold among equal rates, the Pareto front across them."""
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """Metrics to rank by, each with a better direction."""


def study_of(board: Leaderboard, slugs: Iterable[str]) -> tuple[dict[str, Metric], set[str]]:
    """Return what a leaderboard may name: metrics of its study and of papers in it, and their parameters.

    Args:
        board: The leaderboard.
        slugs: The papers of its study, which may have metrics and parameters of their own.

    Raises:
        UnknownStudy: There is no such study.
        StudyError: A params module cannot be used.
    """
    studies = [load_study(board.study), *(load_study(board.study, slug) for slug in slugs)]
    metrics = {name: metric for study in reversed(studies) for name, metric in study.metrics.items()}
    return metrics, {name for study in studies for name in study.evaluate_params.model_fields}


def faults(board: Leaderboard, data: Collection[str] | None, slugs: Iterable[str]) -> Iterator[tuple[Location, str]]:
    """Yield what no single value shows: names that the study or data.yaml does not have, with their place.

    Args:
        board: The leaderboard.
        data: Names in data.yaml; None where that file cannot be read.
        slugs: The papers of its study.
    """
    if data is not None and board.data is not None and board.data not in data:
        yield ("data",), f"{board.data!r} is not in params/data.yaml.{did_you_mean(board.data, data)}"
    try:
        metrics, parameters = study_of(board, slugs)
    except (UnknownStudy, StudyError) as error:
        yield ("study",), str(error)
        return
    named = [(("where", name), name) for name in board.where]
    named += [(("same", index), name) for index, name in enumerate(board.same)]
    if board.rate is not None:
        named += [(("rate", "unless", key), name) for key, name in board.rate.unless.items()]
    for location, name in named:
        if name not in parameters:
            words = f"{name!r} is no parameter of study {board.study}.{did_you_mean(name, parameters)}"
            yield location, words
    measured = [(("metrics", index), name, True) for index, name in enumerate(board.metrics)]
    if board.rate is not None and board.rate.metric is not None:
        measured.append((("rate", "metric"), board.rate.metric, False))
    for location, name, ranked in measured:
        if name not in metrics:
            yield location, f"study {board.study} declares no metric {name!r}.{did_you_mean(name, metrics)}"
        elif ranked and metrics[name].better == "neither":
            yield location, f"{name!r} has no better direction, so nothing can be ranked by it; remove it."
