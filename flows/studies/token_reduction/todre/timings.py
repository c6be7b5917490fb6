"""How long the prefill of a question takes, from features to the first answer; written beside the log, never judged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import polars as pl
import torch

from components.compression import pool
from components.compression.dropped_decoding import DroppingDecoder
from components.compression.layer_drop import DropRule
from components.metrics.tables import write_parquet
from components.multimodal.vlm import VLM
from flows.studies.context import StageContext
from flows.studies.token_reduction.todre.reading import Pictures, selection

TIMINGS = "timings.parquet"
_SCHEMA = {
    "tokens": pl.Int64,
    "batch": pl.Int64,
    "median milliseconds": pl.Float64,
    "least milliseconds": pl.Float64,
    "cached tokens": pl.Int64,
    "peak device MiB": pl.Float64,
}


def measure(stage: StageContext, model: VLM, given: Pictures, count: int) -> None:
    """Time the prefill with `count` visual tokens, alone and in a batch, with dropped tokens really gone."""
    rows = []
    for batch in (1, min(stage.params.timed_batch, len(given.about.scenes))):
        work = _prefill(stage, model, given, count, batch)
        cached = int(work().cached_tokens().sum())
        seconds, peak = _timed(work, stage.params.timed_runs, stage.device)
        rows.append((count, batch, 1e3 * statistics.median(seconds), 1e3 * min(seconds), cached, peak))
    write_parquet(pl.DataFrame(rows, schema=_SCHEMA, orient="row"), stage.log / TIMINGS)


def _prefill(stage: StageContext, model: VLM, given: Pictures, count: int, batch: int) -> Callable[[], DroppingDecoder]:
    """Return the work: projector, choice, prefill of the first scene's first question for the first scenes."""
    params, texts = stage.params, given.about.texts
    question = texts.tokens[0, : int((texts.segments[0] == 1).sum())].long().expand(batch, -1).to(stage.device)
    features = given.about.features[:batch].to(stage.device)
    attention = given.attention[:batch].to(stage.device)
    rule = DropRule(params.check_layers, params.threshold, params.rows) if params.drop == "adaptive" else None
    select = None if params.selection == "all" else selection(stage, count)

    @torch.no_grad()
    def work() -> DroppingDecoder:
        visual = model.visual(features)
        whole = visual.shape[1]
        if select is None:
            return DroppingDecoder(model, visual, question, rule)
        kept = select(visual, attention, count)
        place = whole + 1
        return DroppingDecoder(model, pool.kept(visual, kept), question, rule, places=kept + 1, text_place=place)

    return work


def _timed(work: Callable[[], object], runs: int, device: str) -> tuple[list[float], float]:
    """Return the seconds of every run and the device's peak memory in MiB, 0 on the CPU."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for run in range(-(runs // 3), runs):
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        if run >= 0:
            seconds.append(time.perf_counter() - began)
    return seconds, torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0
