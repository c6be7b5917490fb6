"""What a study says about each metric it writes, so that a claim can be checked before anything is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from components.errors import TesseraError

Direction = Literal["higher", "lower", "neither"]


class MetricDeclarationError(TesseraError):
    """A study declares a metric that no reader could interpret."""


@dataclass(frozen=True)
class Metric:
    """One metric of a study: an entry of its `METRICS: dict[str, Metric]`.

    Attributes:
        unit: Unit in the field's spelling ("dB", "bits", "probability"; "" for a pure number).
        better: Which direction is better, for leaderboards and arrows: "higher", "lower" or "neither".
        says: What is measured and how, in one sentence.

    Raises:
        MetricDeclarationError: `better` is another word, or `says` is empty.
    """

    unit: str
    better: Direction
    says: str

    def __post_init__(self) -> None:
        if self.better not in get_args(Direction):
            raise MetricDeclarationError(f"Metric(better={self.better!r}): expected 'higher', 'lower' or 'neither'.")
        if not self.says.strip():
            raise MetricDeclarationError("Metric(says=''): expected one sentence saying what is measured and how.")
