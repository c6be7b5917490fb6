"""Decode the judged prompts with one arm's drafts: tokens per forward pass, and whether the tokens are the plain ones.

Letters: V tokens of the vocabulary, k candidates of a token.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.language.fill_in_middle import END
from components.language.pretrained import LanguageModel
from components.language.speculative.decoding import Decoded, decode
from components.metrics.stats import jackknife_influence
from components.metrics.tables import MetricTable, write_parquet
from components.tokenizers.text.byte_level import to_bytes
from flows.studies.context import StageContext
from flows.studies.decoding.token_recycling import model_facts, prompts
from flows.studies.decoding.token_recycling.params import EvaluateParams
from flows.studies.decoding.token_recycling.prompts import Prompt
from flows.studies.decoding.token_recycling.train import read_matrix, read_prompts

DECODINGS, TIMINGS = "decodings.parquet", "timings.parquet"
DECODING_SCHEMA = {
    "model": pl.String,
    "set": pl.String,
    "prompt": pl.Int64,
    "tokens": pl.List(pl.Int64),
    "accepted": pl.List(pl.Int64),
    "paths": pl.List(pl.List(pl.Int64)),
    "texts": pl.List(pl.String),
}
TIMING_SCHEMA = {"model": pl.String, "set": pl.String, "what": pl.String, "nodes": pl.Int64, "value": pl.Float64}


@dataclass(frozen=True)
class Run:
    """One arm on one list of prompts.

    Attributes:
        prompts: The prompts, in the order in which they were decoded.
        decoded: What came out of each.
        drafter: The drafter behind the last prompt.
        seconds: Wall clock of the decoding.
    """

    prompts: list[Prompt]
    decoded: list[Decoded]
    drafter: Any
    seconds: float


@dataclass
class _Tables:
    """What an evaluation writes."""

    metrics: MetricTable = field(default_factory=MetricTable)
    decodings: list[tuple] = field(default_factory=list)
    timings: list[tuple] = field(default_factory=list)

    def write(self, stage: StageContext) -> None:
        self.metrics.write(stage.output)
        for rows, schema, path in (
            (self.decodings, DECODING_SCHEMA, stage.output / DECODINGS),
            (self.timings, TIMING_SCHEMA, stage.log / TIMINGS),
        ):
            write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), path)


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm, what it decoded and, into the log, how long it took."""
    params: EvaluateParams = stage.params
    tables = _Tables()
    for done, model in enumerate(params.models):
        stage.progress(done, len(params.models))
        language = prompts.load(stage, model)
        _evaluate_on(stage, model, language, tables)
        if params.measure_models:
            model_facts.measure(stage, model, language, tables.metrics)
    tables.write(stage)


def _evaluate_on(stage: StageContext, model: str, language: LanguageModel, tables: _Tables) -> None:
    """Decode the prompts of one language model."""
    params: EvaluateParams = stage.params
    start = _start(stage, model, language)
    judged, plain, plain_float64 = zip(*read_prompts(stage.inputs["train"], model, "judged"), strict=True)
    run = _decode(stage, language, judged, start)
    _mean_accepted(tables.metrics, "mat", model, run)
    _acceptance(tables.metrics, model, run, language)
    _differences(stage, tables.metrics, model, run, plain, language)
    _record(tables, model, "judged", run, language)
    _cost_model(tables, model, run, language, model_facts.TIMED_SIZES if params.measure_models else ())
    unfiltered = [prompt for prompt, *_ in read_prompts(stage.inputs["train"], model, "unfiltered")]
    run = _decode(stage, language, unfiltered, start)
    _mean_accepted(tables.metrics, "unfiltered_mat", model, run)
    _record(tables, model, "unfiltered", run, language)
    if params.float64:
        language.model.double()
        run = _decode(stage, language, judged, start)
        language.model.float()
        wrong = sum(one.tokens != expected for one, expected in zip(run.decoded, plain_float64, strict=True))
        _mismatches(tables.metrics, model, "float64", wrong, len(judged))


def _record(tables: _Tables, model: str, kind: str, run: Run, language: LanguageModel) -> None:
    for prompt, one in zip(run.prompts, run.decoded, strict=True):
        paths = [list(path) for path in one.paths]
        texts = _texts(one, language)
        tables.decodings.append((model, kind, prompt.name, one.tokens, one.accepted, paths, texts))
    forwards = sum(len(one.accepted) for one in run.decoded)
    tokens = sum(len(one.tokens) for one in run.decoded)
    tables.timings.append((model, kind, "tokens per second", run.drafter.nodes, tokens / run.seconds))
    tables.timings.append((model, kind, "seconds per forward", run.drafter.nodes, run.seconds / forwards))


def _cost_model(tables: _Tables, model: str, run: Run, language: LanguageModel, sizes: Sequence[int]) -> None:
    """Time forward passes alone, t(m) over m nodes, and say what the drafts would bring: MAT t(1) / t(nodes)."""
    nodes = run.drafter.nodes
    times = model_facts.forward_times(language, sorted({1, nodes, *sizes}))
    for size, seconds in times.items():
        tables.timings.append((model, "", "seconds per forward alone", size, seconds))
    accepted = np.concatenate([one.accepted for one in run.decoded])
    tables.timings.append((model, "judged", "modelled speed", nodes, accepted.mean() * times[1] / times[nodes]))


def _texts(one: Decoded, language: LanguageModel) -> list[str]:
    """Return what each forward pass spelled; special tokens spell nothing, torn characters become marks."""
    spelled = [*language.tokenizer.vocabulary, *[""] * len(language.specials)]
    tokens = iter(one.tokens)
    passes = [[spelled[token] for token in itertools.islice(tokens, count)] for count in one.accepted]
    return [to_bytes("".join(parts)).decode("utf-8", errors="replace") for parts in passes]


def _start(stage: StageContext, model: str, language: LanguageModel) -> Tensor | None:
    """Return the adjacency matrix to start from, (V, k), None for zeros."""
    params: EvaluateParams = stage.params
    if params.start == "warm":
        return read_matrix(stage.inputs["train"], model)
    if params.start == "bigram":
        return model_facts.bigram(stage, model, language).likeliest(params.k)
    return None


def _decode(stage: StageContext, language: LanguageModel, chosen: list[Prompt], start: Tensor | None) -> Run:
    """Decode prompts in their order with a fresh drafter."""
    params: EvaluateParams = stage.params
    module = importlib.import_module(f"components.language.speculative.{params.drafter}")
    options = params.drafter_options()
    if start is not None:
        options["start"] = start
    drafter = module.build(language.model.vocabulary_size, stage.device, **options)
    rules = [prompts.rule(prompt, language.model, params) for prompt in chosen]
    began = time.perf_counter()
    decoded = [
        decode(language.model, prompt.tokens, params.new_tokens, drafter, rule, language.specials[END])
        for prompt, rule in zip(chosen, rules, strict=True)
    ]
    return Run(list(chosen), decoded, drafter, time.perf_counter() - began)


def _mean_accepted(table: MetricTable, metric: str, model: str, run: Run) -> None:
    tokens = np.array([len(one.tokens) for one in run.decoded])
    forwards = np.array([len(one.accepted) for one in run.decoded])
    without = (tokens.sum() - tokens) / (forwards.sum() - forwards)
    values = jackknife_influence(tokens.sum() / forwards.sum(), without)
    names = [prompt.name for prompt in run.prompts]
    table.add_items(metric, values, unit="tokens/forward", at={"base": model}, items=names, normaliser="forward passes")


def _acceptance(table: MetricTable, model: str, run: Run, language: LanguageModel) -> None:
    """Add how many tokens passes gave, how deep paths went and which candidates they took, and what M went through."""
    at = {"base": model}
    accepted = np.concatenate([one.accepted for one in run.decoded])
    passes = len(accepted)
    counts = np.bincount(accepted, minlength=run.drafter.depth + 2)
    for tokens in range(1, run.drafter.depth + 2):
        where = {**at, "accepted": tokens}
        table.add("accepted_share", counts[tokens] / passes, unit="share", at=where, samples=passes)
    for depth in range(1, run.drafter.depth + 1):
        above = int((accepted >= depth).sum())
        if above:
            share = float((accepted > depth).sum() / above)
            table.add("acceptance_by_depth", share, unit="share", at={**at, "depth": depth}, samples=above)
    taken = [candidate for one in run.decoded for path in one.paths for candidate in path]
    for candidate, count in enumerate(np.bincount(taken) / len(taken) if taken else []):
        where = {**at, "candidate": candidate}
        table.add("acceptance_by_candidate", float(count), unit="share", at=where, samples=len(taken))
    table.add("draft_nodes", run.drafter.nodes - 1, unit="tokens", at=at, samples=1)
    if hasattr(run.drafter, "matrix"):
        matrix = run.drafter.matrix
        size = language.model.vocabulary_size
        table.add("rows_touched", int(matrix.touched.sum()) / size, unit="share", at=at, samples=size)
        table.add("rows_written", int(matrix.writes) / passes, unit="rows/forward", at=at, samples=passes)
        table.add("matrix_bytes", matrix.bytes, unit="bytes", at=at, samples=1)


def _differences(
    stage: StageContext, table: MetricTable, model: str, run: Run, plain: Sequence[list[int]], language: LanguageModel
) -> None:
    """Count single-precision continuations that differ from the plain ones, and how near a tie each first does."""
    differing = [
        (prompt, one.tokens, expected)
        for prompt, one, expected in zip(run.prompts, run.decoded, plain, strict=True)
        if one.tokens != expected
    ]
    _mismatches(table, model, "float32", len(differing), len(plain))
    if differing:
        gaps = [_gap(stage, language, *each) for each in differing]
        names = [prompt.name for prompt, *_ in differing]
        table.add_items("first_difference_gap", gaps, unit="logits", at={"base": model}, items=names)


def _mismatches(table: MetricTable, model: str, precision: str, wrong: int, sequences: int) -> None:
    where = {"base": model, "precision": precision}
    table.add("mismatching_sequences", wrong, unit="sequences", at=where, samples=sequences)


@torch.no_grad()
def _gap(stage: StageContext, language: LanguageModel, prompt: Prompt, found: list[int], plain: list[int]) -> float:
    """Return the distance of the two largest scores of plain decoding where two continuations part."""
    network = language.model
    parted = next(place for place, pair in enumerate(itertools.zip_longest(found, plain)) if pair[0] != pair[1])
    text = torch.tensor([[*prompt.tokens, *plain[:parted]]], device=network.device)
    logits = network(network.with_start(text))[0, -1:]
    scores = prompts.rule(prompt, network, stage.params)(logits, torch.tensor([text.shape[1]], device=network.device))
    best = scores[0].topk(2).values
    return float(best[0] - best[1])
