"""Planted clusters: how far one merge moves the spectrum of the token graph, and how far many do.

Letters: `B` draws, `N` tokens, `K` clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.analysis.planted_clusters import Planted, planted
from components.analysis.spectral_distance import WEIGHTS, spectral_distance, spectrum, weights
from components.compression.merging.plan import Depth, MergePlan, Reducer, destinations, groups, merged, to_remove
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.token_reduction.methods import reducer

_STEP = 0.9
_CHUNK = 50
_PLANTED, _DRAWN = 11, 12  # random streams of this stage


def measure(stage: StageContext) -> None:
    """Write spectral distances of one method on token sets that all methods of a seed share."""
    params = stage.params
    method = reducer(params, margin=params.cluster_margin)
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _DRAWN))
    once: dict[tuple[str, float, float, int], Tensor] = {}
    steps: dict[tuple[str, float, int], Tensor] = {}
    for index, noise in enumerate(params.noises):
        for tokens in params.cluster_tokens:
            found = _drawn(stage, tokens, index)
            once |= _once(method, found, noise, tokens, params.cluster_ratios, generator)
            few = Planted(*(part[: params.step_draws] for part in found))
            steps |= _steps(method, few, noise, tokens, tokens // params.cluster_share, generator)
        stage.progress(index + 1, len(params.noises))
    table = MetricTable()
    _add(table, params, once)
    for kind in WEIGHTS:
        for noise in params.noises:
            values = torch.stack([steps[kind, noise, tokens] for tokens in params.cluster_tokens]).mean(0)
            at = {"weight": kind, "noise": noise}
            table.add_items("spectral_distance_of_steps", values.tolist(), unit="", at=at)
    table.write(stage.output)


def _drawn(stage: StageContext, tokens: int, index: int) -> Planted:
    params = stage.params
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _PLANTED, tokens, index))
    return planted(
        max(params.draws, params.step_draws),
        tokens,
        tokens // params.cluster_share,
        params.cluster_width,
        params.noises[index],
        generator,
        margin=params.cluster_margin,
    )


def _once(
    method: Reducer, found: Planted, noise: float, tokens: int, ratios: tuple[float, ...], generator: torch.Generator
) -> dict:
    """Return spectral distances (B,) of one merge, by weight, noise, ratio and number of tokens."""
    values: dict[tuple, list[Tensor]] = {}
    for part in found.tokens.split(_CHUNK):
        graphs = {kind: weights(part, kind) for kind in WEIGHTS}
        own = {kind: spectrum(graph) for kind, graph in graphs.items()}
        for ratio in ratios:
            plan = method.plan(part, to_remove(tokens, ratio), Depth(generator=generator))
            ends = destinations(plan)
            for kind in WEIGHTS:
                distance = spectral_distance(graphs[kind], ends, own[kind])
                values.setdefault((kind, noise, ratio, tokens), []).append(distance)
    return {key: torch.cat(parts) for key, parts in values.items()}


def _steps(method, found: Planted, noise: float, tokens: int, clusters: int, generator: torch.Generator) -> dict:
    """Return spectral distances (B,) of merging down to the number of clusters, by weight, noise, number of tokens."""
    values, sizes = found.tokens, None
    plans: list[MergePlan] = []
    while values.shape[1] > clusters:
        left = values.shape[1]
        count = min(max(1, to_remove(left, _STEP)), left - clusters)
        plans.append(method.plan(values, count, Depth(generator=generator)))
        values, sizes = merged(plans[-1], values, sizes)
    ends = groups(plans)
    return {(kind, noise, tokens): spectral_distance(weights(found.tokens, kind), ends) for kind in WEIGHTS}


def _add(table: MetricTable, params, once: dict[tuple[str, float, float, int], Tensor]) -> None:
    for kind in WEIGHTS:
        for ratio in params.cluster_ratios:
            by_noise = {}
            for noise in params.noises:
                of_size = [once[kind, noise, ratio, tokens] for tokens in params.cluster_tokens]
                by_noise[noise] = torch.stack(of_size).mean(0)
                at = {"weight": kind, "ratio": ratio, "noise": noise}
                table.add_items("spectral_distance", by_noise[noise].tolist(), unit="", at=at)
                for tokens, values in zip(params.cluster_tokens, of_size, strict=True):
                    table.add(
                        "spectral_distance_by_size",
                        float(values.mean()),
                        unit="",
                        at={**at, "tokens": tokens},
                        samples=len(values),
                        variance=float(values.var() / len(values)),
                    )
            mean = torch.stack(list(by_noise.values())).mean(0)
            table.add_items("spectral_distance", mean.tolist(), unit="", at={"weight": kind, "ratio": ratio})
