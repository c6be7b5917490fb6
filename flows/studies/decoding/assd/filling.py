"""Fill the gaps of held-out windows with one arm's way of doing it, and read the result with the judge.

Letters: B windows, N tokens of a window, k drafts.
"""

from __future__ import annotations

import importlib
import math
import time

import polars as pl
import torch
from torch import Tensor

from components.language.any_order import Order, blind_denoiser, lattice_order
from components.language.causal_lm import CausalLM
from components.language.speculative.any_subset import Filled, fill_in_parallel, fill_speculatively
from components.metrics.rouge import rouge_l
from components.metrics.tables import MetricTable, write_parquet
from components.nn.two_stream_transformer import TwoStreamTransformer
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.decoding.assd import texts
from flows.studies.decoding.assd.density import gaps
from flows.studies.decoding.assd.params import EvaluateParams

FILLINGS, TIMINGS = "fillings.parquet", "timings.parquet"
_BATCH = 128
_SHOWN = 8  # fillings that are kept as text
_WINDOWS, _DRAWS = 6, 7  # random streams of this stage
_TIMING_SCHEMA = {"k": pl.Int64, "seconds per token": pl.Float64, "tokens": pl.Int64}
_FILLING_SCHEMA = {"k": pl.Int64, "item": pl.String, "original": pl.String, "given": pl.String, "filled": pl.String}


def measure(stage: StageContext, model: TwoStreamTransformer, table: MetricTable) -> None:
    """Add what filling takes and gives for every k; gaps are the same for all arms of a seed."""
    params: EvaluateParams = stage.params
    language = texts.judge(stage)
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _WINDOWS))
    windows = texts.held_out(stage, language).draw(params.sequences, generator)
    order = lattice_order(gaps(len(windows), params.context, params.masked_share, generator))
    names = [f"{stage.seed}-{index}" for index in range(len(windows))]
    judge = language.model.to(stage.device)
    original = torch.cat([_judged(judge, part) for part in windows.split(_BATCH)])
    table.add_items("original_nll", original.tolist(), unit="nats/token", items=names, normaliser="tokens")
    timings, shown = [], []
    spelled = [*language.tokenizer.vocabulary, *language.specials, "_"]
    given = windows.masked_fill(order.masked, len(spelled) - 1)
    for done, k in enumerate(params.ks):
        filled, seconds = _fill(stage, model, windows, order, k, (done, len(params.ks)))
        _cost(table, filled, order, k, names, params.filler)
        _quality(table, filled.tokens, windows, order, k, names, judge)
        timings.append((k, seconds / int(order.masked.sum()), int(order.masked.sum())))
        for item in range(min(_SHOWN, len(windows))):
            rows = windows[item], given[item], filled.tokens[item]
            shown.append((k, names[item], *("".join(spelled[token] for token in row.tolist()) for row in rows)))
    write_parquet(pl.DataFrame(shown, schema=_FILLING_SCHEMA, orient="row"), stage.output / FILLINGS)
    write_parquet(pl.DataFrame(timings, schema=_TIMING_SCHEMA, orient="row"), stage.log / TIMINGS)


def _fill(
    stage: StageContext, model: TwoStreamTransformer, windows: Tensor, order: Order, k: int, done: tuple[int, int]
) -> tuple[Filled, float]:
    """Fill all windows batch by batch; return the result on the CPU and the seconds it took."""
    generator = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _DRAWS, k))
    fill = _filler(stage.params, model)
    parts, began = [], time.perf_counter()
    batches = torch.arange(len(windows)).split(_BATCH)
    for number, rows in enumerate(batches):
        stage.progress(done[0] * len(batches) + number, done[1] * len(batches))
        parts.append(fill(windows[rows].to(stage.device), order[rows].to(stage.device), k, generator))
    seconds = time.perf_counter() - began
    fields = ("tokens", "calls", "reached", "accepted")
    return Filled(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in fields)), seconds


def _filler(params: EvaluateParams, model: TwoStreamTransformer):
    """Return the arm's `(tokens, order, k, generator) -> Filled`."""
    if params.filler == "parallel":
        return lambda *given: fill_in_parallel(model, *given, temperature=params.temperature)
    if params.filler == "ancestral":
        return lambda *given: _ancestral(params, model, *given)
    drafter = None
    if params.drafter == "context":
        drafter = importlib.import_module("components.language.context_ngram").ContextBigram(model.vocabulary_size)
    return lambda *given: fill_speculatively(model, *given, temperature=params.temperature, drafter=drafter)


def _ancestral(
    params: EvaluateParams, model: TwoStreamTransformer, tokens: Tensor, order: Order, k: int, generator
) -> Filled:
    """Fill by masked diffusion in as many steps as k tokens each would take."""
    samplers = importlib.import_module("components.diffusion.samplers")
    from components.diffusion.noise import AbsorbingNoise
    from components.diffusion.schedules import Grid, LinearSchedule

    steps = math.ceil(int(order.masked.sum(1).max()) / k)
    noise = AbsorbingNoise(model.vocabulary_size + 1, model.mask_token_id)
    grid = Grid(LinearSchedule(), steps)
    with torch.no_grad():
        sampled = samplers.sample_ancestral(
            blind_denoiser(model),
            tokens,
            order.masked,
            noise,
            grid,
            steps,
            generator,
            temperature=params.temperature,
        )
    nothing = torch.zeros(len(tokens), k, dtype=torch.int64, device=tokens.device)
    return Filled(sampled.tokens, sampled.calls, nothing, nothing)


def _cost(table: MetricTable, filled: Filled, order: Order, k: int, names: list[str], filler: str) -> None:
    gaps_of = order.masked.sum(1)
    ratio = (filled.calls / gaps_of).tolist()
    table.add_items("calls_per_token", ratio, unit="calls/token", at={"k": k}, items=names, normaliser="filled tokens")
    over = int((filled.calls > gaps_of).sum())
    table.add("bound_violations", over, unit="texts", at={"k": k}, samples=len(names))
    if filler != "speculative":
        return
    for place, (accepted, reached) in enumerate(zip(filled.accepted.sum(0), filled.reached.sum(0), strict=True)):
        if reached:
            at = {"k": k, "draft": place}
            table.add("acceptance", float(accepted / reached), unit="share", at=at, samples=int(reached))


def _quality(
    table: MetricTable, filled: Tensor, windows: Tensor, order: Order, k: int, names: list[str], judge: CausalLM
) -> None:
    where = {"at": {"k": k}, "items": names}
    nats = torch.cat([_judged(judge, part) for part in filled.split(_BATCH)])
    table.add_items("judge_nll", nats.tolist(), unit="nats/token", normaliser="tokens", **where)
    gaps_of = order.masked.sum(1, keepdim=True)
    share = torch.zeros(len(filled), judge.vocabulary_size, dtype=torch.float64)
    share = share.scatter_add(1, filled, order.masked.double()) / gaps_of
    table.add_items("token_entropy", torch.special.entr(share).sum(1).tolist(), unit="nats", **where)
    # Every window has as many gaps, so filled tokens lie side by side.
    pair = [each[order.masked].unflatten(0, (len(filled), -1)) for each in (filled, windows)]
    table.add_items("rouge", rouge_l(*pair).tolist(), unit="share", **where)


@torch.no_grad()
def _judged(judge: CausalLM, tokens: Tensor) -> Tensor:
    """Return -ln P of whole texts by the judge over their tokens, (B, N) to (B,)."""
    rows = judge.along(tokens[:, :-1]).cpu()
    return -rows.gather(-1, tokens[..., None])[..., 0].mean(1)
