"""What a stage function is given, and the only things it may touch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def no_progress(done: int, total: int, **values: float) -> None:
    """Report nothing; the default where nobody watches."""


@dataclass(frozen=True)
class StageContext:
    """One data, base, train or evaluate stage.

    A stage function reads `inputs`, writes into `output` (a temporary sibling that the runner renames when the
    function returns) and is a deterministic function of `params`, `inputs` and `seed`.

    Attributes:
        kind: "data", "base", "train" or "evaluate".
        paper: Slug, or the name of the data set or base.
        variant: Variant of the paper ("" for data and bases).
        arm: Arm of the paper ("" for data and bases).
        seed: Seed of this replicate.
        profile: "smoke", "small" or "full".
        params: The study's typed parameters for this arm (TrainParams or EvaluateParams).
        inputs: Input directories by name: "data/<name>", "bases/<name>" and, for an evaluation, "train".
        output: Directory to write results into.
        log: Directory for text and timings that nothing depends on.
        checkpoint: Directory that survives a kill and is offered again to the same stage with the same inputs.
        device: Torch device to compute on.
        progress: Called as `progress(done, total, **values)`.
    """

    kind: str
    paper: str
    variant: str
    arm: str
    seed: int
    profile: str
    params: Any
    inputs: Mapping[str, Path]
    output: Path
    log: Path
    checkpoint: Path
    device: str = "cpu"
    progress: Callable[..., None] = field(default=no_progress)


@dataclass(frozen=True)
class JudgeContext:
    """The judge stage of one variant of a paper: what its figure and derived-metric code is given.

    Attributes:
        paper: The paper's declaration (flows.declarations.paper.Paper).
        variant: Name of the variant judged.
        profile: "smoke", "small" or "full".
        evaluations: Run directory of each evaluation by (arm, seed).
        trainings: Run directory of each training by (arm, seed); arms that share a model share its directory.
        output: Directory to write into; figures go to `output / "figures"` as SVG.
    """

    paper: Any
    variant: str
    profile: str
    evaluations: Mapping[tuple[str, int], Path]
    trainings: Mapping[tuple[str, int], Path]
    output: Path
