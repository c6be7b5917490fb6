"""What tokens do to retrieval and clustering when they stand before every document, and to attention.

Letters: Q queries, N documents, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from components.analysis.attention_share import prefix_attention
from components.data.sentence_pool import passages
from components.encoders.sentence import SentenceEncoder
from components.metrics.retrieval import ndcg, reciprocal_rank, v_measure
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.analysis.sticky_tokens.params import EvaluateParams
from flows.studies.context import StageContext

_PASSAGES = 3  # random stream
_STARTS = 4  # k-means from as many starts; the best counts


def retrieval(stage: StageContext, table: MetricTable, encoder: SentenceEncoder, tokens: Sequence[str]) -> pl.DataFrame:
    """Add measures of retrieval and clusters without and with insertion; return nDCG by token and query."""
    params: EvaluateParams = stage.params
    drawn = passages(
        stage.inputs["data/wikitext2"],
        groups=params.articles,
        each=params.passages,
        queries=params.queries,
        words=params.passage_words,
        generator=np.random.default_rng(derive_seed(stage.seed, _PASSAGES)),
    )
    asked = encoder.encode(drawn.queries)
    names = [f"s{stage.seed}-q{query}" for query in range(len(drawn.queries))]
    gains, reciprocal, agreement = [], [], []
    for token in (None, *tokens):
        front = "" if token is None else f"{token} " * params.retrieval_copies
        vectors = encoder.encode([front + text for text in drawn.documents])
        scores = (asked @ vectors.T).cpu().numpy()
        gains.append(ndcg(scores, drawn.relevant))
        reciprocal.append(reciprocal_rank(scores, drawn.relevant))
        clusters = _clusters(vectors.cpu().numpy(), params.articles, stage.seed)
        agreement.append(v_measure(drawn.groups, clusters))
    changes = 100 * (np.mean(gains[1:], 0) - gains[0]) / max(gains[0].mean(), 1e-9)
    table.add_items("ndcg_change", changes.tolist(), unit="%", items=names, normaliser="mean nDCG without insertion")
    for inserted, rows in ((False, slice(0, 1)), (True, slice(1, None))):
        at = {"inserted": inserted}
        table.add_items("ndcg", np.mean(gains[rows], 0).tolist(), unit="", at=at, items=names)
        table.add_items("reciprocal_rank", np.mean(reciprocal[rows], 0).tolist(), unit="", at=at, items=names)
        table.add("cluster_agreement", float(np.mean(agreement[rows])), unit="", at=at, samples=len(drawn.documents))
    columns = {"token": ["", *tokens], "ndcg": [row.tolist() for row in gains], "cluster_agreement": agreement}
    return pl.DataFrame(columns, schema_overrides={"token": pl.String})


def _clusters(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=_STARTS, random_state=seed).fit_predict(vectors)


def attention(
    table: MetricTable, encoder: SentenceEncoder, sentences: Sequence[str], tokens: Sequence[str], copies: int
) -> None:
    """Add each layer's attention to inserted copies, and how far its maps move, over tokens and sentences."""
    found = [prefix_attention(encoder, sentence, tokens, copies) for sentence in sentences]
    for metric, unit, place in (("attention_share", "share", 0), ("attention_distance", "", 1)):
        values = np.stack([pair[place].numpy() for pair in found]).mean(1)  # (sentences, layers)
        for layer in range(values.shape[1]):
            table.add_items(metric, values[:, layer].tolist(), unit=unit, at={"layer": layer})
