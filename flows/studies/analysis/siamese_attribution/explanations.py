"""Matrices of token pairs for one pair of sentences, in all the ways that are compared.

Every matrix is on the scale of a cosine: what it adds up to lies in -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.analysis import attribution
from components.analysis.attribution import Quadrature
from components.analysis.attribution_path import EncoderPath
from components.metrics.tables import write_parquet
from flows.studies.analysis.siamese_attribution.pairs import Sentence, SentencePair

MATRICES_FILE, ERRORS_FILE = "matrices.parquet", "errors.parquet"


@dataclass(frozen=True)
class Explanation:
    """What a way of explaining says of a pair.

    Attributes:
        matrix: Attribution of each pair of tokens, float64 (S_a, S_b).
        similarity: What the matrix should add up to.
    """

    matrix: np.ndarray
    similarity: float

    @property
    def error(self) -> float:
        """|sum of the matrix - similarity|."""
        return abs(float(self.matrix.sum()) - self.similarity)


@dataclass(frozen=True)
class Reading:
    """A sentence on its path.

    Attributes:
        contributions: c of its tokens under each rule, (S, E) float64.
        vector: e(x), (E,).
        reference: e(r), (E,).
        final: The last layer's token vectors, (S, E).
    """

    contributions: list[Tensor]
    vector: Tensor
    reference: Tensor
    final: Tensor


def read(path: EncoderPath, sentence: Sentence, rules: Sequence[Quadrature]) -> Reading:
    """Read a sentence alone, so that nothing depends on what else is explained."""
    ids = torch.tensor([sentence.ids], device=path.encoder.device)
    ends = path.ends(ids)
    found = attribution.contributions(path.embed, *ends, rules) if rules else []
    with torch.no_grad():
        final = path.final(ends.x)
        vectors = (path.encoder.pool(final, None), path.embed(ends.reference))
    return Reading([each[0] for each in found], vectors[0][0], vectors[1][0], final[0])


def integrated(path: EncoderPath, pair: SentencePair, rules: Sequence[Quadrature]) -> list[Explanation]:
    """Explain a pair by integrated Jacobians under each rule; one point at the right end is gradient times input."""
    first, second = (read(path, side, rules) for side in (pair.first, pair.second))
    terms = (first.vector, second.vector, first.reference, second.reference)
    scale = float(attribution.cosine_scale(*terms))
    similarity = float(attribution.corrected_similarity(*terms)) / scale
    matrices = (attribution.pair_matrix(a, b) for a, b in zip(first.contributions, second.contributions, strict=True))
    return [Explanation((matrix / scale).cpu().numpy(), similarity) for matrix in matrices]


def last_layer_dot(path: EncoderPath, pair: SentencePair) -> Explanation:
    """Explain a pair's plain cosine by dot products of final token vectors, with what the layers mixed left mixed."""
    first, second = (read(path, side, []) for side in (pair.first, pair.second))
    scale = float(first.vector.double().norm() * second.vector.double().norm())
    parts = (attribution.last_layer_contributions(each.final[None])[0] for each in (first, second))
    matrix = attribution.pair_matrix(*parts) / scale
    return Explanation(matrix.cpu().numpy(), float(first.vector.double() @ second.vector.double()) / scale)


def one_side(path: EncoderPath, pair: SentencePair, rule: Quadrature) -> Explanation:
    """Explain a pair by integrated gradients of the first sentence, the second fixed, spread evenly over its tokens."""
    first, second = read(path, pair.first, [rule]), read(path, pair.second, [])
    difference, other = (first.vector - first.reference).double(), second.vector.double()
    scale = float(difference.norm() * other.norm())
    values = attribution.one_sided(first.contributions[0], other) / scale
    matrix = attribution.spread_evenly(values, len(pair.second.ids))
    return Explanation(matrix.cpu().numpy(), float(difference @ other) / scale)


def uniform(explanation: Explanation) -> Explanation:
    """Return the explanation in which all pairs of tokens have equal shares of the same similarity."""
    matrix = attribution.uniform(explanation.similarity, *explanation.matrix.shape)
    return Explanation(matrix.numpy(), explanation.similarity)


def write_matrices(explained: dict[str, Explanation], directory: Path) -> None:
    """Write one row for each pair: its matrix row by row, and what it should add up to."""
    rows = [
        (name, each.matrix.shape[1], each.matrix.ravel().tolist(), each.similarity) for name, each in explained.items()
    ]
    schema = {"pair": pl.String, "columns": pl.Int64, "values": pl.List(pl.Float64), "similarity": pl.Float64}
    write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), directory / MATRICES_FILE)


def read_matrices(directory: Path) -> dict[str, Explanation]:
    """Read the explanations that a stage has written, by the name of the pair."""
    return {
        name: Explanation(np.asarray(values).reshape(-1, columns), similarity)
        for name, columns, values, similarity in pl.read_parquet(directory / MATRICES_FILE).iter_rows()
    }
