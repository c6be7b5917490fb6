"""What is made of the survey's measurements: figures, and how far apart the seeds of an arm are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.image_tokenizer.discrete_tokenization_survey.figures import SurveyFigures
from flows.studies.image_tokenizer.discrete_tokenization_survey.modality_figures import ModalityFigures


def derive(stage: JudgeContext) -> Mapping[tuple[str, int], MetricTable]:
    """Draw the figures that the variant's arms allow; return how far apart each arm's seeds are."""
    figures = SurveyFigures(stage)
    figures.rate_distortion()
    figures.collapse()
    figures.progressive()
    figures.reconstructions()
    figures.training()
    figures.priors()
    ModalityFigures(stage).draw()
    return seed_deviations(figures, list(dict.fromkeys(arm for arm, _ in stage.evaluations)))


def seed_deviations(figures: SurveyFigures, arms: Sequence[str]) -> dict[tuple[str, int], MetricTable]:
    """Return the standard deviation of PSNR between seeds, the same value under every seed of an arm."""
    tables = {}
    for arm in arms:
        values = figures.means(arm, "psnr")
        if len(values) < 2:
            continue
        for seed in figures.runs(arm):
            tables[arm, seed] = MetricTable()
            tables[arm, seed].add("psnr_seed_deviation", float(values.std(ddof=1)), unit="dB", samples=len(values))
    return tables
