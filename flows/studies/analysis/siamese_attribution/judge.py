"""What is read from the pairs of all samples together, and the paper's figures."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.analysis.attribution_groups import LabelledPair, group_ratio, permuted_ratios
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.declarations.resolve import resolve
from flows.studies.analysis.siamese_attribution import explanations, pairs
from flows.studies.analysis.siamese_attribution.figures import AttributionFigures
from flows.studies.analysis.siamese_attribution.groups import holding, labelled
from flows.studies.analysis.siamese_attribution.params import EvaluateParams
from flows.studies.context import JudgeContext

METHOD, RANDOM = "integrated_jacobians", "random_encoder"
_PERMUTATIONS, _RESAMPLES = 0, 1  # random streams


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return what the pairs of all samples say together, the same number beside every seed."""
    tables: dict[tuple[str, int], MetricTable] = {run: MetricTable() for run in stage.evaluations}
    for arm in dict.fromkeys(arm for arm, _ in stage.evaluations):
        params = resolve(stage.paper, stage.variant, arm, stage.profile, "evaluate")
        own = [tables[run] for run in tables if run[0] == arm]
        if params.measure == "words":
            _permute(_all_words(stage, arm), params, own)
        elif arm == METHOD and RANDOM in {name for name, _ in stage.evaluations}:
            _compare_with_random(stage, params, own)
    figures = AttributionFigures(stage)
    figures.matrices()
    figures.errors()
    figures.shares()
    figures.words()
    figures.quality()
    return tables


def _all_words(stage: JudgeContext, arm: str) -> list[LabelledPair]:
    folders = [folder for (owner, _), folder in sorted(stage.trainings.items()) if owner == arm]
    return [pair for folder in folders for pair in labelled(pairs.read(folder), explanations.read_matrices(folder))]


def _permute(found: list[LabelledPair], params: EvaluateParams, tables: list[MetricTable]) -> None:
    """Add how often tags in random order within sentences give so large a ratio, counting the order found as one."""
    generator = np.random.default_rng(derive_seed(0, _PERMUTATIONS))
    drawn = permuted_ratios(found, params.words, params.permutations, generator)
    # Equal up to rounding counts as so large.
    larger = int((drawn >= group_ratio(found, params.words) - 1e-12).sum())
    for table in tables:
        p = (1 + larger) / (1 + params.permutations)
        table.add("permutation_p", p, unit="probability", samples=len(found))
        table.add("pairs_with_group", holding(found, params.words), unit="pairs", samples=len(found))


def _compare_with_random(stage: JudgeContext, params: EvaluateParams, tables: list[MetricTable]) -> None:
    """Add the median over all pairs of what they need less than with the random encoder, with a bootstrap's end."""
    sides = [
        pl.concat(
            pl.read_parquet(run / "metrics.parquet").filter(pl.col("metric") == "pair_needs").select("sample", "value")
            for (arm, _), run in sorted(stage.evaluations.items())
            if arm == wanted
        )
        for wanted in (METHOD, RANDOM)
    ]
    both = sides[0].join(sides[1], on="sample", suffix="_random", maintain_order="left")
    if both.is_empty():
        return
    own, random = both["value"].to_numpy(), both["value_random"].to_numpy()
    generator = np.random.default_rng(derive_seed(0, _RESAMPLES))
    rows = generator.integers(len(own), size=(params.resamples, len(own)))
    high = float(np.quantile(np.median(own[rows], 1) - np.median(random[rows], 1), 0.975))
    for table in tables:
        table.add("needs_below_random", float(np.median(own) - np.median(random)), unit="share", samples=len(own))
        table.add("needs_below_random_high", high, unit="share", samples=len(own))
