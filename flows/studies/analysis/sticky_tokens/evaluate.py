"""What an arm's distances say: verification and spread, the place of the published tokens, or the definition."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
from scipy.stats import rankdata

from components.analysis.sticky_scoring import token_scores
from components.encoders.sentence import load_sentence_encoder
from components.metrics.stats import spearman
from components.metrics.tables import MetricTable, write_parquet
from components.training.determinism import derive_seed
from components.training.weights import read_tensors
from flows.studies.analysis.sticky_tokens import downstream, verified
from flows.studies.analysis.sticky_tokens.params import EvaluateParams
from flows.studies.analysis.sticky_tokens.train import DISTANCES, FACTS, TOKENS
from flows.studies.context import StageContext

SCORES, JUDGED, PAIRS, RETRIEVAL = "scores.parquet", "judged.parquet", "pairs.parquet", "retrieval.parquet"
_RANDOM = 4  # random stream


def evaluate(stage: StageContext) -> None:
    """Write the metrics of an arm and the tables that its figures and comparisons read."""
    params: EvaluateParams = stage.params
    run = stage.inputs["train"]
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(run / DISTANCES).items()}
    tokens = pl.read_parquet(run / TOKENS)
    facts = json.loads((run / FACTS).read_text(encoding="utf-8"))
    table = MetricTable()
    table.add("mean_similarity", facts["centre"], unit="", samples=1)
    table.add("measured_tokens", len(tokens), unit="tokens", samples=len(tokens))
    table.add("realised_copies", float(tokens["realised"].mean()), unit="tokens", samples=len(tokens))
    if params.measure == "ranking":
        _ranking(stage, table, tokens, arrays)
    elif params.measure == "definition":
        _definition(stage, table, tokens, arrays["distances"], facts["centre"])
    else:
        _verification(stage, table, tokens, arrays, facts)
    table.write(stage.output)


def _verification(stage: StageContext, table: MetricTable, tokens: pl.DataFrame, arrays: dict, facts: dict) -> None:
    params: EvaluateParams = stage.params
    found = verified.Verified.of(arrays["distances"], params)
    verified.measure(table, found, arrays.get("above"), params, stage.seed)
    judged = verified.token_table(tokens, found)
    write_parquet(judged, stage.output / JUDGED)
    counting = np.union1d(*found.chosen)
    rows = counting if len(counting) else found.ordered()[: params.least_detected]
    moved = 1 - found.distances[rows]
    pairs = {"before": moved[0, :, 0, 0], "after": moved[..., -1].mean((0, 2))}
    write_parquet(pl.DataFrame(pairs), stage.output / PAIRS)
    shrunk = verified.contraction(found.distances[rows], facts["centre"])
    table.add("contraction", float(shrunk.mean()), unit="ratio", samples=len(shrunk))
    if not (params.retrieval_tokens or params.attention_tokens):
        return
    encoder = load_sentence_encoder(stage.inputs[f"data/{params.encoder}"]).to(stage.device)
    # Detected tokens by how far they move pairs; random ones in the order of their ids, which says nothing of them.
    order = found.ordered() if params.selection == "cross_fitted" else np.arange(len(tokens))
    texts = tokens["token"].gather(order).to_list()
    if params.retrieval_tokens:
        gains = downstream.retrieval(stage, table, encoder, texts[: params.retrieval_tokens])
        write_parquet(gains, stage.output / RETRIEVAL)
    if params.attention_tokens:
        sentences = facts["second"][: params.attention_sentences]
        whole = [text for text, one in zip(texts, tokens["realised"].gather(order), strict=True) if one == 1]
        copies = facts["copies"][-1]
        downstream.attention(table, encoder, sentences, whole[: params.attention_tokens], copies)


def _ranking(stage: StageContext, table: MetricTable, tokens: pl.DataFrame, arrays: dict) -> None:
    params: EvaluateParams = stage.params
    if params.ranking == "random":
        scores = np.random.default_rng(derive_seed(stage.seed, _RANDOM)).random(len(tokens))
    else:
        apart = arrays["apart"] if params.ranking == "score" else np.zeros_like(arrays["apart"])
        scores = token_scores(arrays["distances"], apart)
    scored = tokens.with_columns(score=pl.Series(scores))
    write_parquet(scored, stage.output / SCORES)
    published, others = (scored.filter(kind=kind)["score"].to_numpy() for kind in ("published", "random"))
    placements = (others < published[:, None]).mean(1) + 0.5 * (others == published[:, None]).mean(1)
    names = scored.filter(kind="published")["token"].to_list()
    table.add_items("published_auc", placements.tolist(), unit="probability", items=names)
    for kind in scored["kind"].unique(maintain_order=True):
        part = scored.filter(kind=kind)["score"]
        table.add("mean_score", float(part.mean()), unit="", at={"kind": kind}, samples=len(part))


def _definition(
    stage: StageContext, table: MetricTable, tokens: pl.DataFrame, distances: np.ndarray, centre: float
) -> None:
    params: EvaluateParams = stage.params
    shrunk = verified.contraction(distances, centre)
    there = np.abs(1 - distances[..., -1] - centre) <= params.tolerance
    shares = there.mean((1, 2))
    table.add_items("share_at_mean", shares.tolist(), unit="fraction", items=tokens["token"].to_list())
    table.add("contraction", float(shrunk.mean()), unit="ratio", samples=len(shrunk))
    ranking = pl.read_parquet(stage.inputs[f"bases/{params.scan}"] / "ranking.parquet").select("token", "score")
    scores = tokens.join(ranking, on="token", how="left", maintain_order="left")["score"].to_numpy()
    table.add("gold_correlation", spearman(scores, -shrunk), unit="", samples=len(scores))
    write_parquet(tokens.with_columns(score=scores, contraction=shrunk, share_at_mean=shares), stage.output / SCORES)


def mean_auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Return the AUC averaged over samples.

    Args:
        scores: Of each sample and token, (samples, T).
        positives: Whether a token is one, bool (T,).
    """
    ranks = rankdata(scores, axis=1)
    count = int(positives.sum())
    others = scores.shape[1] - count
    return float(((ranks[:, positives].sum(1) - count * (count + 1) / 2) / (count * others)).mean())
