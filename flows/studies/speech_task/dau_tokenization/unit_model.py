"""Language models of units: bits per base unit of whole utterances, and what a model says when it is asked to speak.

Utterances stand in one row with an end mark behind each, so that the event that is compared is the same for every kind
of token: this utterance's units, and then its end. A longer utterance than the context is read in windows that overlap
by half.

Letters: `V` tokens (the end mark is token V), `C` context, `D` width, `L` blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from components.bases import construct, load_model, save_model, specification
from components.data.speech import read_speech
from components.language.generation import generate
from components.language.kneser_ney import KneserNeyBigram
from components.metrics.stats import jackknife_influence
from components.metrics.tables import MetricTable
from components.tokenizers.audio.unit_bpe import UnitBPE
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.params import UNIT_LM
from flows.studies.speech_task.dau_tokenization.speaking import speak_and_read
from flows.studies.speech_task.dau_tokenization.symbols import (
    as_symbols,
    learned_tokens,
    load_tokens,
    save_tokens,
    stored_units,
)

SENTENCES = "espeak-sent"
_WEIGHTS, _DRAWS = 3, 7  # random streams
_SAMPLES_PER_UNIT = 160


def description(params: Any, tokens: int) -> dict[str, Any]:
    """Describe the model of so many tokens."""
    return specification(
        UNIT_LM,
        vocabulary_size=tokens + 1,
        context=params.context,
        width=params.width,
        layers=params.lm_layers,
        heads=params.heads,
        positions="rotary",
    )


def token_operations(params: Any, tokens: int) -> float:
    """Return multiplications of a forward pass for one token: L (12 D^2 + C D) + (V + 1) D."""
    width = params.width
    return params.lm_layers * (12 * width**2 + params.context * width) + (tokens + 1) * width


def train(stage: StageContext) -> None:
    """Learn tokens of the training units and train the model on stretches, with the operations of the base run."""
    params = stage.params
    stored = stored_units(stage)
    sequences = [as_symbols(units, params.dedup) for units in stored.train]
    tokens = learned_tokens(params, sequences, stored.size, stage.seed)
    count = tokens.vocabulary_size
    stream = torch.tensor([token for units in sequences for token in (*tokens.encode(units), count)])
    steps = params.steps
    if params.equal_flops:
        steps = max(1, round(steps * token_operations(params, stored.size) / token_operations(params, count)))
    described = description(params, count)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(described)
    length = min(params.context, len(stream))

    def draw_batch(step: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(stream) - length + 1, (params.batch_size, 1), generator=generator)
        return stream[starts + torch.arange(length)]

    curves = fit(
        model,
        draw_batch,
        lambda model, batch, _: (model.loss(batch), {}),
        Optimisation(steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    curves.write(stage.output)
    save_model(stage.output, model, described)
    save_tokens(stage, tokens)


@torch.no_grad()
def sequence_bits(model: nn.Module, tokens: Sequence[int]) -> float:
    """Return -log2 P of an utterance's tokens and its end, behind an end mark.

    Args:
        model: Its last token is the end mark.
        tokens: Any number.
    """
    end, room = model.vocabulary_size - 1, model.config.context - 1
    row = torch.tensor([end, *tokens, end], device=model.device)
    total, done = 0.0, 1
    while done < len(row):
        first = max(0, done - max(1, room // 2)) if done > 1 else 0
        window = row[first : first + room + 1]
        law = model(model.with_start(window[None, :-1]))[0].double().log_softmax(-1)
        # Place i of the law is behind the start and i tokens of the window: it says token i.
        nats = -law.gather(1, window[:, None])[:, 0]
        total += float(nats[done - first :].sum())
        done = first + len(window)
    return total / math.log(2)


def ratio_rows(bits: Sequence[float], units: Sequence[int]) -> list[float]:
    """Return one row for each utterance whose mean is total bits over total units."""
    bits, units = np.asarray(bits, dtype=np.float64), np.asarray(units, dtype=np.float64)
    rest = (bits.sum() - bits) / (units.sum() - units)
    return jackknife_influence(float(bits.sum() / units.sum()), rest).tolist()


def evaluate(stage: StageContext) -> None:
    """Measure bits of held-out utterances, a bigram's, order of words, and speech that is drawn."""
    params, table = stage.params, MetricTable()
    tokens, model = load_tokens(stage), load_model(stage.inputs["train"]).to(stage.device)
    stored = stored_units(stage)
    kept = range(len(stored.held_out))[: params.test_utterances]
    sequences = [as_symbols(stored.held_out[row], params.dedup) for row in kept]
    names = [stored.names[row] for row in kept]
    encoded = [tokens.encode(each) for each in sequences]
    bits = [sequence_bits(model, each) for each in encoded]
    lengths = [len(each) for each in sequences]
    _add_bits(table, "network", bits, lengths, names)
    heard = [as_symbols(units, params.dedup) for units in stored.train]
    bigram = KneserNeyBigram(heard, stored.size)
    _add_bits(table, "bigram", [bigram.bits(each) for each in sequences], lengths, names)
    table.add("length_ratio", sum(map(len, encoded)) / sum(lengths), unit="share", samples=len(encoded))
    _add_order(stage, table, model, tokens, dict(zip(stored.names, stored.held_out, strict=True)))
    if params.generated:
        drawn = {each: _drawn(stage, model, tokens, each) for each in params.temperatures}
        speak_and_read(stage, table, drawn, stored)
    steps = _run_steps(stage)
    table.add("steps_run", steps, unit="steps", samples=1)
    table.write(stage.output)


def _add_bits(table: MetricTable, model: str, bits: Sequence[float], units: Sequence[int], names: list[str]) -> None:
    rows = ratio_rows(bits, units)
    table.add_items("bits_per_unit", rows, unit="bits", at={"model": model}, items=names, normaliser="base units")


def _run_steps(stage: StageContext) -> int:
    return pl.read_parquet(stage.inputs["train"] / "curves.parquet")["step"].max()


def _add_order(
    stage: StageContext, table: MetricTable, model: nn.Module, tokens: UnitBPE, units: dict[str, list[int]]
) -> None:
    """Compare every held-out sentence with itself after its first two neighbouring different words change places."""
    speech = read_speech(stage.inputs[f"data/{SENTENCES}"], "test", stage.params.test_utterances)
    items, right = [], []
    for row, name in enumerate(speech.names):
        frames = units[f"{SENTENCES}/{name}"]
        swapped = exchanged(frames, speech.words(row))
        if swapped is None:
            continue
        # Each per unit: the exchange may make or undo a run.
        costs = []
        for each in (frames, swapped):
            symbols = as_symbols(each, stage.params.dedup)
            costs.append(sequence_bits(model, tokens.encode(symbols)) / len(symbols))
        items.append(name)
        right.append(100.0 if costs[0] < costs[1] else 50.0 if costs[0] == costs[1] else 0.0)
    if items:
        table.add_items("order_accuracy", right, unit="percent", items=items)


def exchanged(frames: Sequence[int], words: Sequence[tuple[str, int, int]]) -> list[int] | None:
    """Return the units of a sentence with its first two different neighbouring words exchanged; None for one word."""
    for (one, start, middle), (other, begin, end) in itertools.pairwise(words):
        edges = [round(sample / _SAMPLES_PER_UNIT) for sample in (start, middle, begin, end)]
        first, between, second = (frames[left:right] for left, right in itertools.pairwise(edges))
        if one != other and first and second:
            return [*frames[: edges[0]], *second, *between, *first, *frames[edges[3] :]]
    return None


def _drawn(stage: StageContext, model: nn.Module, tokens: UnitBPE, temperature: float) -> list[list[int]]:
    """Draw utterances, as base units: from an end mark to the next one, or to the end of the context."""
    params = stage.params
    end = model.vocabulary_size - 1
    generator = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _DRAWS, round(1000 * temperature)))
    begin = torch.full((params.generated, 1), end, device=stage.device)
    rows = generate(model, begin, params.context - 2, generator, temperature).tolist()
    return [tokens.decode(row[: row.index(end)] if end in row else row) for row in rows]
