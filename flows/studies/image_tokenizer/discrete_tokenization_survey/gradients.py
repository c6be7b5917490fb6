"""The survey's study of gradient estimators: bias and variance where the true gradient is enumerated."""

from __future__ import annotations

from typing import NoReturn

from torch import Generator

from components.analysis.gradient_bias import TEMPERED, draw_problems, measure
from components.errors import TesseraError
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.context import StageContext

_PROBLEMS, _NOISE = 3, 4  # streams; 0 to 2 seed the process
_NORMAL_99 = 2.5758293035489004


def train(stage: StageContext) -> NoReturn:
    """Refuse: an estimator is measured, not trained.

    Raises:
        TesseraError: Always.
    """
    raise TesseraError(f"arm {stage.arm!r}: the task gradients trains nothing; give the arm `trained: false`.")


def evaluate(stage: StageContext) -> None:
    """Measure one estimator, at every temperature where it has one.

    A seed draws its own problems and noise; all estimators of a seed get the same.
    """
    params, table = stage.params, MetricTable()
    generator = Generator().manual_seed(derive_seed(stage.seed, _PROBLEMS))
    problems = draw_problems(
        params.problems, params.toy_codes, params.toy_dim, params.assignment_temperature, generator
    )
    noise = derive_seed(stage.seed, _NOISE)
    scale = float(problems.true_gradient().double().norm(dim=-1).mean())
    items = [f"seed {stage.seed} problem {place}" for place in range(params.problems)]
    tempered = params.estimator in TEMPERED
    for done, temperature in enumerate(params.temperatures if tempered else (1.0,)):
        at = {"tau": temperature} if tempered else None
        found = measure(problems, params.estimator, params.draws, noise, temperature)
        bias = found.bias / scale
        table.add_items("bias", bias.tolist(), unit="", at=at, items=items)
        # Problems are fixed and their noise is independent: errors of the mean over problems add up in squares.
        error = float((found.bias_error / scale).square().sum().sqrt()) / params.problems
        for name, side in (("bias_low_99", -_NORMAL_99), ("bias_high_99", _NORMAL_99)):
            table.add(name, float(bias.mean()) + side * error, unit="", at=at, samples=params.problems)
        table.add_items("variance", (found.variance / scale**2).tolist(), unit="", at=at, items=items)
        table.add_items("cosine", found.cosine.tolist(), unit="", at=at, items=items)
        table.add_items("draw_cosine", found.draw_cosine.tolist(), unit="", at=at, items=items)
        stage.progress(done + 1, len(params.temperatures) if tempered else 1)
    table.add("truth_norm", scale, unit="", samples=params.problems)
    table.write(stage.output)
