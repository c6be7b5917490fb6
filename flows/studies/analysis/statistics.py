"""The statistics of one corpus: frequencies, growth, digits, entropies, codes and embeddings of its tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.analysis import benford as digits
from components.analysis.document_bootstrap import bootstrap_variance, drawn_documents, resampled_counts
from components.analysis.embedding_alignment import cooccurrences, glove
from components.analysis.heaps import VocabularyGrowth, growth_grid, heaps_fit, innovation_rate
from components.analysis.token_corpus import Grams, TokenCorpus
from components.analysis.zipf import RankLawError, curvature, fit_rank_laws, rank_frequencies, winner
from components.compression.entropy_coding import (
    compressed_share,
    conditional_entropies,
    entropy,
    fixed_length,
    huffman_mean_length,
    huffman_saving,
    miller_madow,
)
from components.metrics.tables import MetricTable, write_parquet
from components.training.weights import write_tensors
from flows.studies.analysis.params import EvaluateParams
from flows.studies.analysis.streams import numbers, torch_numbers
from flows.studies.context import StageContext

RANKS_FILE, GROWTH_FILE = "ranks.parquet", "growth.parquet"
_DRAWN_RANKS = 120


def embedding_file(corpus: str) -> str:
    """Return the name under which an evaluation keeps the embeddings of a corpus, rows by descending frequency."""
    return f"embeddings-{corpus}.safetensors"


class CorpusStatistics:
    """Measures corpora of one stage into its tables.

    Args:
        stage: The evaluate stage.
        table: Where metrics go.
    """

    def __init__(self, stage: StageContext, table: MetricTable) -> None:
        self._stage, self._params, self._table = stage, stage.params, table
        self._ranks: list[pl.DataFrame] = []
        self._growth: list[pl.DataFrame] = []

    def measure(self, corpus: str, order: str, tokens: TokenCorpus) -> None:
        """Measure a corpus; of a further linearisation (order not "raster") only what depends on it."""
        params: EvaluateParams = self._params
        grams = [tokens.grams(n) for n in range(1, params.longest_gram + 1)]
        at = {"corpus": corpus} if order == "raster" else {"corpus": corpus, "order": order}
        self._entropies(at, tokens, grams)
        self._growths(at, tokens, grams, named=order == "raster")
        if order != "raster":
            return
        self._vocabulary(at, tokens, grams[0])
        for n, counted in enumerate(grams, start=1):
            self._frequencies({**at, "n": n}, corpus, counted)
        if params.embedding_dim:
            self._embed(corpus, tokens, grams[0])

    def write(self, directory: Path) -> None:
        """Write the points of the rank and growth curves that figures are drawn from."""
        write_parquet(pl.concat(self._ranks), directory / RANKS_FILE)
        write_parquet(pl.concat(self._growth), directory / GROWTH_FILE)

    def _vocabulary(self, at: dict, tokens: TokenCorpus, single: Grams) -> None:
        live = int((single.counts > 0).sum())
        samples = len(tokens.tokens)
        self._table.add("live_types", live, unit="types", at=at, samples=samples)
        share = live / tokens.vocabulary_size
        self._table.add("live_share", share, unit="share", at=at, samples=samples, normaliser="vocabulary")
        self._table.add("corpus_documents", len(tokens.names), unit="documents", at=at, samples=samples)

    def _frequencies(self, at: dict, corpus: str, grams: Grams) -> None:
        """Fit the rank laws and compare leading digits."""
        counts, samples = grams.counts, len(grams.types)
        try:
            laws = fit_rank_laws(counts, self._params.least_count)
        except RankLawError:  # of a small corpus' long n-grams nearly all occur once
            laws = {}
        best = laws[winner(laws)].bic if laws else 0.0
        for name, law in laws.items():
            under = {**at, "law": name}
            self._table.add("zipf_parameter", law.exponent, unit="", at=under, samples=samples)
            self._table.add("rank_likelihood", law.per_type, unit="nats/type", at=under, samples=samples)
            self._table.add("rank_ks", law.ks, unit="", at=under, samples=samples)
            self._table.add("bic_excess", law.bic - best, unit="nats", at=under, samples=samples)
        if laws:
            shift = laws["zipf_mandelbrot"].shift
            self._table.add("mandelbrot_shift", shift, unit="ranks", at=at, samples=samples)
        self._table.add("rank_curvature", curvature(counts), unit="", at=at, samples=samples)
        found = digits.benford(counts)
        self._table.add("benford_chi_square", found.chi_square, unit="", at=at, samples=found.numbers)
        self._table.add("benford_mad", found.mad, unit="", at=at, samples=found.numbers)
        for digit, share in enumerate(found.shares.tolist(), start=1):
            self._table.add("digit_share", share, unit="share", at={**at, "digit": digit}, samples=found.numbers)
        frequencies = rank_frequencies(counts)
        ranks = np.unique(np.geomspace(1, len(frequencies), _DRAWN_RANKS).round().astype(np.int64))
        shares = frequencies[ranks - 1] / frequencies.sum()
        points = {"corpus": corpus, "n": at["n"], "rank": ranks, "share": shares}
        self._ranks.append(pl.DataFrame(points))

    def _growths(self, at: dict, tokens: TokenCorpus, grams: list[Grams], *, named: bool) -> None:
        """Fit Heaps' law to n-grams, and see how early and after how many documents the types are there."""
        params: EvaluateParams = self._params
        documents = len(tokens.names)
        generator = numbers(self._stage.seed, f"orders {at['corpus']}")
        orders = [generator.permutation(documents) for _ in range(params.orders)]
        drawn = drawn_documents(documents, params.resamples, numbers(self._stage.seed, f"bootstrap {at['corpus']}"))
        for n, counted in enumerate(grams, start=1):
            growth = VocabularyGrowth(counted, documents)
            grid = growth_grid(growth.tokens)
            seen = np.mean([growth.curve(order, grid) for order in orders], axis=0)
            rates, under = innovation_rate(grid, seen), {**at, "n": n}
            variance = None
            if n <= 2 and named:
                variance = bootstrap_variance(lambda order: heaps_fit(grid, growth.curve(order, grid))[1], drawn)  # noqa: B023
            beta = heaps_fit(grid, seen)[1]
            self._table.add("heaps_exponent", beta, unit="", at=under, samples=documents, variance=variance)
            late = grid[:-1] >= 0.9 * growth.tokens
            rate = float(rates[late].mean()) if late.any() else float(rates[-1])
            self._table.add("innovation_rate", rate, unit="types/token", at=under, samples=documents)
            if named:
                points = {"corpus": at["corpus"], "n": n, "tokens": grid, "types": seen}
                self._growth.append(pl.DataFrame(points))
            if n == 1 and named:
                early = np.mean([growth.share_seen(order, params.early_share) for order in orders])
                variance = bootstrap_variance(lambda order: growth.share_seen(order, params.early_share), drawn)  # noqa: B023
                self._table.add(
                    "share_seen_early", early, unit="share", at=at, samples=documents, variance=variance,
                    normaliser="live types",
                )  # fmt: skip
                until = np.mean([growth.documents_until(order, 0.9) for order in orders])
                self._table.add("documents_until_90", until, unit="documents", at=at, samples=documents)

    def _entropies(self, at: dict, tokens: TokenCorpus, grams: list[Grams]) -> None:
        size, samples, single = tokens.vocabulary_size, len(tokens.tokens), grams[0].counts
        conditional = conditional_entropies([counted.counts for counted in grams])
        for n, bits in enumerate(conditional, start=1):
            self._table.add("conditional_entropy", bits, unit="bits/token", at={**at, "n": n}, samples=samples)
        for compressor in ("gzip", "lzma"):
            share = 100 * compressed_share(tokens.tokens, size, compressor)
            self._table.add(f"{compressor}_share", share, unit="%", at=at, samples=samples, normaliser="bits")
        pairs = 100 * huffman_saving(grams[1].counts, size, tokens=2)
        self._table.add("pair_huffman_saving", pairs, unit="%", at=at, samples=samples, normaliser="bits")
        if "order" in at:
            return
        drawn = drawn_documents(
            len(tokens.names), self._params.resamples, numbers(self._stage.seed, f"codes {at['corpus']}")
        )
        counts = resampled_counts(grams[0], drawn)
        saving = 100 * huffman_saving(single, size)
        spread = 100 * (1 - huffman_mean_length(counts) / fixed_length(size))
        self._table.add(
            "huffman_saving", saving, unit="%", at=at, samples=len(tokens.names), variance=float(spread.var(ddof=1)),
            normaliser="bits",
        )  # fmt: skip
        height = float(entropy(single)) / np.log2(size)
        spread = entropy(counts) / np.log2(size)
        self._table.add(
            "normalised_entropy", height, unit="", at=at, samples=len(tokens.names),
            variance=float(spread.var(ddof=1)), normaliser="log2 V",
        )  # fmt: skip
        self._table.add("entropy", float(miller_madow(single)), unit="bits/token", at=at, samples=samples)

    def _embed(self, corpus: str, tokens: TokenCorpus, single: Grams) -> None:
        params: EvaluateParams = self._params
        counts = cooccurrences(tokens, params.embedding_window).to(self._stage.device)
        generator = torch_numbers(self._stage.seed, f"embeddings {corpus}")
        found = glove(counts, params.embedding_dim, generator, steps=params.embedding_steps).cpu()
        order = np.argsort(-single.counts, kind="stable")[: int((single.counts > 0).sum())]
        write_tensors({"embeddings": found[torch.from_numpy(order)]}, self._stage.output / embedding_file(corpus))
