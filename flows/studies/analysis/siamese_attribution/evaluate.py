"""Measure what an arm explains of its sample of pairs, or how well its similarities agree with human scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import torch

from components.analysis.attribution import Quadrature
from components.analysis.attribution_groups import group_ratio
from components.analysis.attribution_path import EncoderPath
from components.analysis.attribution_shares import interaction_share, pairs_needed, tokens_touched
from components.encoders.sentence import SentenceEncoder
from components.finetune.siamese import reference_texts, shifted_vectors
from components.metrics.stats import spearman
from components.metrics.tables import MetricTable
from components.metrics.word_overlap import jaccard
from flows.studies.analysis.siamese_attribution import encoders, explanations, pairs, scored
from flows.studies.analysis.siamese_attribution.explanations import Explanation
from flows.studies.analysis.siamese_attribution.groups import labelled
from flows.studies.analysis.siamese_attribution.pairs import SentencePair
from flows.studies.analysis.siamese_attribution.params import EvaluateParams
from flows.studies.context import StageContext


def evaluate(stage: StageContext) -> None:
    """Write the metrics of an arm, and the matrices of a way to explain that is computed here."""
    table = MetricTable()
    _MEASURES[stage.params.measure](stage, table)
    table.write(stage.output)


def _integrated_jacobians(stage: StageContext, table: MetricTable) -> None:
    """Errors by layer, rule and points, and shares of the matrices that the sample's stage has written."""
    errors = pl.read_parquet(stage.inputs["train"] / explanations.ERRORS_FILE)
    for (layer, rule, points), rows in errors.group_by("layer", "rule", "points", maintain_order=True):
        _add_errors(table, rows["error"].to_list(), rows["pair"].to_list(), layer=layer, rule=rule, points=points)
    _add_shares(table, _stored(stage), stage.params)


def _computed(explain: Callable[[StageContext], Callable[[SentencePair], Explanation]], *, shares: bool = True):
    """Return a measure that explains the pairs of the sample anew and compares with the stored matrices."""

    def measure(stage: StageContext, table: MetricTable) -> None:
        stored, explain_pair = _stored(stage), explain(stage)
        found = {pair.name: explain_pair(pair) for pair in pairs.read(stage.inputs["train"])}
        explanations.write_matrices(found, stage.output)
        if shares:
            _add_shares(table, found, stage.params)
        agreement = [spearman(each.matrix.ravel(), stored[name].matrix.ravel()) for name, each in found.items()]
        table.add_items("agreement", agreement, unit="", items=list(found))
        names = list(found)[: stage.params.error_pairs]
        at = {"gradient_x_input": ("right", 1)}.get(stage.params.measure, ("midpoint", stage.params.share_points))
        if stage.params.measure != "last_layer_dot":
            errors = [found[name].error for name in names]
            _add_errors(table, errors, names, layer=stage.params.layer, rule=at[0], points=at[1])

    return measure


def _gradient_x_input(stage: StageContext) -> Callable[[SentencePair], Explanation]:
    path = EncoderPath(encoders.published(stage), stage.params.layer)
    return lambda pair: explanations.integrated(path, pair, [Quadrature(1, "right")])[0]


def _random_encoder(stage: StageContext) -> Callable[[SentencePair], Explanation]:
    path = EncoderPath(encoders.random_layers(stage), stage.params.layer)
    return lambda pair: explanations.integrated(path, pair, [Quadrature(stage.params.share_points, "midpoint")])[0]


def _last_layer_dot(stage: StageContext) -> Callable[[SentencePair], Explanation]:
    path = EncoderPath(encoders.published(stage), stage.params.layer)
    return lambda pair: explanations.last_layer_dot(path, pair)


def _one_side(stage: StageContext) -> Callable[[SentencePair], Explanation]:
    path = EncoderPath(encoders.published(stage), stage.params.layer)
    return lambda pair: explanations.one_side(path, pair, Quadrature(stage.params.share_points, "midpoint"))


def _uniform(stage: StageContext, table: MetricTable) -> None:
    _add_shares(table, {name: explanations.uniform(each) for name, each in _stored(stage).items()}, stage.params)


def _words(stage: StageContext, table: MetricTable) -> None:
    """Mass of the pairs of words with the arm's tags on both sides."""
    found = labelled(pairs.read(stage.inputs["train"]), _stored(stage))
    table.add("group_ratio", group_ratio(found, stage.params.words), unit="×", samples=len(found))


def _similarity(stage: StageContext, table: MetricTable) -> None:
    params: EvaluateParams = stage.params
    encoder = encoders.tuned(stage) if "train" in stage.inputs else encoders.published(stage)
    held = scored.read(stage.inputs["data/sts"], params, test=True)
    ids = encoder.token_ids([*held.first, *held.second], params.longest_scored)
    vectors = shifted_vectors(encoder, ids, shifted=params.shifted)
    cosines = torch.cosine_similarity(*vectors.chunk(2), dim=-1).double().numpy()
    _add_quality(table, cosines, held)
    lengths, place = torch.tensor([len(text) for text in ids]).unique(return_inverse=True)
    references = shifted_vectors(encoder, reference_texts(encoder, lengths), shifted=params.shifted)[place]
    terms = (references * vectors).sum(-1).abs() / vectors.square().sum(-1)
    table.add("reference_term", float(terms.double().mean()), unit="", samples=len(ids))


def _word_overlap(stage: StageContext, table: MetricTable) -> None:
    held = scored.read(stage.inputs["data/sts"], stage.params, test=True)
    _add_quality(table, np.array([jaccard(*both) for both in zip(held.first, held.second, strict=True)]), held)


def _tuned_explanation(stage: StageContext, table: MetricTable) -> None:
    """Errors of a tuned, shifted encoder's attributions against its own cosines."""
    params: EvaluateParams = stage.params
    sampled = pairs.sample(stage.inputs["data/ud"], encoders.published(stage), params, stage.seed)
    sampled = sampled[: params.explained_pairs]
    path, rule = EncoderPath(encoders.tuned(stage), params.layer), Quadrature(max(params.points), "right")
    found = {pair.name: explanations.integrated(path, pair, [rule])[0] for pair in sampled}
    cosines = _shifted_cosines(path.encoder, sampled)
    errors = [abs(float(each.matrix.sum()) - cosine) for each, cosine in zip(found.values(), cosines, strict=True)]
    _add_errors(table, errors, list(found), layer=params.layer, rule=rule.rule, points=rule.points)
    explanations.write_matrices(found, stage.output)


def _shifted_cosines(encoder: SentenceEncoder, sampled: list[SentencePair]) -> list[float]:
    sides = ([getattr(pair, side).ids for pair in sampled] for side in ("first", "second"))
    vectors = (shifted_vectors(encoder, side, shifted=True).double() for side in sides)
    return torch.cosine_similarity(*vectors, dim=-1).tolist()


_MEASURES: dict[str, Callable[[StageContext, MetricTable], None]] = {
    "integrated_jacobians": _integrated_jacobians,
    "gradient_x_input": _computed(_gradient_x_input),
    "last_layer_dot": _computed(_last_layer_dot),
    "one_side": _computed(_one_side),
    "random_encoder": _computed(_random_encoder),
    "uniform": _uniform,
    "words": _words,
    "similarity": _similarity,
    "word_overlap": _word_overlap,
    "tuned_explanation": _tuned_explanation,
}


def _stored(stage: StageContext) -> dict[str, Explanation]:
    return explanations.read_matrices(stage.inputs["train"])


def _add_errors(table: MetricTable, errors: list[float], names: list[str], **at: object) -> None:
    table.add_items("pair_error", errors, unit="", at=at, items=names)
    table.add("completeness_error", float(np.median(errors)), unit="", at=at, samples=len(errors))


def _add_shares(table: MetricTable, found: dict[str, Explanation], params: EvaluateParams) -> None:
    """Add how each pair's similarity is shared out; pairs that add up to less than a share of nothing are left out."""
    table.add_items("corrected_similarity", [each.similarity for each in found.values()], unit="", items=list(found))
    kept = {name: each.matrix for name, each in found.items() if each.matrix.sum() >= params.least_similarity}
    left_out = 1 - len(kept) / len(found)
    if kept:
        needs = [pairs_needed(matrix, params.share) for matrix in kept.values()]
        median = float(np.median(needs))
        table.add("pairs_needed", median, unit="share", samples=len(needs), masked_share=left_out)
        for metric, values in {
            "pair_needs": needs,
            "tokens_touched": [tokens_touched(matrix, params.share) for matrix in kept.values()],
        }.items():
            table.add_items(metric, values, unit="share", items=list(kept), masked_share=left_out)
    everything = {
        "negative_mass": lambda matrix: -matrix[matrix < 0].sum() / np.abs(matrix).sum(),
        "edge_mass": lambda matrix: 1 - np.abs(matrix[1:-1, 1:-1]).sum() / np.abs(matrix).sum(),
        "pair_information": interaction_share,
    }
    for metric, measure in everything.items():
        values = [float(measure(each.matrix)) for each in found.values()]
        table.add_items(metric, values, unit="share", items=list(found))


def _add_quality(table: MetricTable, similarity: np.ndarray, held: scored.ScoredPairs) -> None:
    scored.add_agreement(table, similarity, held)
    squared = np.square(similarity - held.target)
    table.add_items("human_error", squared.tolist(), unit="", items=held.names)
