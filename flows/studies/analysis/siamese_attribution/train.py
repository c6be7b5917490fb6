"""Explain a sample of sentence pairs by integrated Jacobians, or tune an encoder's upper layers on human similarity."""

from __future__ import annotations

import json
import time

import polars as pl
import torch
from torch import Tensor

from components.analysis.attribution import Quadrature
from components.analysis.attribution_path import EncoderPath
from components.finetune.siamese import SiameseBatches, UpperLayers, siamese_loss
from components.metrics.tables import write_parquet
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.weights import save_weights
from flows.studies.analysis.siamese_attribution import explanations, pairs, scored
from flows.studies.analysis.siamese_attribution.encoders import WEIGHTS_FILE, published
from flows.studies.analysis.siamese_attribution.params import TrainParams
from flows.studies.context import StageContext

_PASSES = 2  # random stream of the order of pairs


def train(stage: StageContext) -> None:
    """Write a sample with its attributions, or the tuned layers with their curves."""
    began = time.perf_counter()
    {"explain": _explain, "tune": _tune}[stage.params.task](stage)
    (stage.log / "timings.json").write_text(json.dumps({"seconds": time.perf_counter() - began}) + "\n")


def rules(params: TrainParams) -> list[Quadrature]:
    """Return the sums over which the error is followed."""
    right = [Quadrature(points, "right") for points in params.points]
    return right + [Quadrature(points, "midpoint") for points in params.midpoints]


def _explain(stage: StageContext) -> None:
    """Attribute each pair at the layer of the claims, some also with other numbers of points and at other layers."""
    params: TrainParams = stage.params
    encoder = published(stage)
    sampled = pairs.sample(stage.inputs["data/ud"], encoder, params, stage.seed)
    pairs.write(sampled, stage.output)
    judged = Quadrature(params.share_points, "midpoint")
    path, explained, errors = EncoderPath(encoder, params.layer), {}, []
    deeper = {layer: EncoderPath(encoder, layer) for layer in params.deep_layers}
    for number, pair in enumerate(sampled):
        followed = rules(params) if number < params.error_pairs else [judged]
        found = dict(zip(followed, explanations.integrated(path, pair, followed), strict=True))
        explained[pair.name] = found[judged]
        by_layer = {params.layer: found}
        if number < params.deep_pairs:
            for layer, deep in deeper.items():
                by_layer[layer] = dict(zip(followed, explanations.integrated(deep, pair, followed), strict=True))
        if number < params.error_pairs:
            errors += [
                (pair.name, layer, rule.rule, rule.points, each.error, each.similarity)
                for layer, by_rule in by_layer.items()
                for rule, each in by_rule.items()
            ]
        stage.progress(number + 1, len(sampled))
    explanations.write_matrices(explained, stage.output)
    schema = {
        "pair": pl.String,
        "layer": pl.Int64,
        "rule": pl.String,
        "points": pl.Int64,
        "error": pl.Float64,
        "similarity": pl.Float64,
    }
    write_parquet(pl.DataFrame(errors, schema=schema, orient="row"), stage.output / explanations.ERRORS_FILE)


def _tune(stage: StageContext) -> None:
    """Tune the layers from `tuned_from` on; the seed decides the order of pairs."""
    params: TrainParams = stage.params
    encoder = published(stage)
    given = scored.read(stage.inputs["data/sts"], params, test=False)
    ids = [encoder.token_ids(side, params.longest_scored) for side in (given.first, given.second)]
    drawn = SiameseBatches(encoder, *ids, torch.from_numpy(given.target), params.tuned_from)
    model = UpperLayers(encoder, params.tuned_from, shifted=params.shifted)
    order = _Passes(len(drawn), params.batch, derive_seed(stage.seed, _PASSES))
    curves = fit(
        model,
        lambda step, generator: drawn.batch(order.rows(step)),
        lambda model, batch, generator: (siamese_loss(model, batch), {}),
        Optimisation(
            params.steps,
            params.learning_rate,
            warmup_steps=round(params.warmup_share * params.steps),
            final_fraction=0.0,
            betas=(0.9, 0.999),
            weight_decay=params.weight_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        log_every=20,
        progress=stage.progress,
    )
    save_weights(model, stage.output / WEIGHTS_FILE)
    curves.write(stage.output)


class _Passes:
    """Rows of every update: passes through all pairs, each in an order of its own; the same for both arms of a seed."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._batch, self._seed = count, min(batch, count), seed

    def rows(self, step: int) -> Tensor:
        """Return the rows of a step, int64 (B,); what is left of a pass is filled up from the next one."""
        places = torch.arange(step * self._batch, (step + 1) * self._batch)
        passes = {number: self._pass(number) for number in (places // self._count).unique().tolist()}
        return torch.stack([passes[place // self._count][place % self._count] for place in places.tolist()])

    def _pass(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, number))
        return torch.randperm(self._count, generator=generator)
