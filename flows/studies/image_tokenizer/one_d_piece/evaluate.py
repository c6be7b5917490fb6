"""One-D-Piece: the study's metrics at every prefix, what each position contributes, and photographs at equal bytes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from components.analysis.token_contribution import class_information, token_contribution
from components.bases import load_model
from components.metrics.stats import grouped_jackknife, spearman
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.evaluate import Samples, reconstruction_metrics
from flows.studies.image_tokenizer.photographs import codec_at_budgets, tokenizer_at_budgets
from flows.studies.image_tokenizer.sources import TestImages

_SHUFFLES = 5
_BLOCKS = 10
_CLUSTERS = 5  # shown: the most frequent first codes
_DRAWS, _ORDERS = 4, 5  # random streams of this stage


def evaluate(stage: StageContext) -> None:
    """Evaluate a tokenizer, or a codec where the arm names one."""
    table, samples = MetricTable(), Samples()
    if stage.params.codec:
        codec_at_budgets(stage, table, samples)
    else:
        model = load_model(stage.inputs["train"]).to(stage.device)
        test, indices = reconstruction_metrics(stage, model, table, samples)
        _contributions(stage, model, test, indices, table)
        _first_token(stage, model, test, indices, table, samples)
        tokenizer_at_budgets(stage, model, table, samples)
    table.write(stage.output)
    samples.write(stage.output)


def _contributions(
    stage: StageContext, model: nn.Module, test: TestImages, indices: Tensor, table: MetricTable
) -> None:
    """Analysis (a): the pixel change that a random code at each position makes, for every image."""
    count = min(stage.params.contribution_images, len(indices))
    values = token_contribution(
        model.decode,
        indices[:count].to(stage.device),
        model.codebook_size,
        draws=stage.params.contribution_draws,
        generator=torch.Generator().manual_seed(derive_seed(stage.seed, _DRAWS)),
    )
    for position, column in enumerate(values.unbind(1), start=1):
        table.add_items("token_contribution", column.tolist(), unit="grey levels", at={"position": position})
    order = np.arange(values.shape[1])
    rank, variance = grouped_jackknife(
        lambda rows: spearman(order, values[torch.from_numpy(rows)].mean(0).numpy()), count, min(count, _BLOCKS)
    )
    table.add("contribution_spearman", rank, unit="", samples=count, variance=variance)


def _first_token(
    stage: StageContext, model: nn.Module, test: TestImages, indices: Tensor, table: MetricTable, samples: Samples
) -> None:
    """Analysis (b): what images that share their first token share."""
    first = indices[:, 0]
    frequent = torch.bincount(first, minlength=model.codebook_size).argsort(descending=True, stable=True)
    for rank, code in enumerate(frequent[:_CLUSTERS].tolist(), start=1):
        rows = (first == code).nonzero().squeeze(1)[: stage.params.sample_images]
        samples.add("first token", rows.tolist(), rank, test.images[rows])
    if test.labels is None:
        return
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _ORDERS))
    information = class_information(indices, test.labels, shuffles=_SHUFFLES, generator=generator)
    for position, value in enumerate(information.tolist(), start=1):
        table.add("class_information", value, unit="bits", at={"position": position}, samples=len(indices))
