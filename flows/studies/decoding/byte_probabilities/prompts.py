"""Prompts that stop inside a token: bits of the true bytes that follow, and whether greedy decoding ends the line."""

from __future__ import annotations

import numpy as np

from components.language.byte_stream import ByteStream
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.decoding.byte_probabilities.passages import Cut, HeldOut, Passage, take_cut, token_ends
from flows.studies.decoding.byte_probabilities.predictors import (
    AskedModel,
    byte_model,
    following_bits,
    greedy_strings,
    strings_write_line,
    writes_line,
)
from flows.studies.decoding.sources import stream


def measure(stage: StageContext, model: AskedModel, held_out: HeldOut, table: MetricTable) -> None:
    """Measure one arm behind the prompts of its seed, which all arms of the seed share."""
    params = stage.params
    inside, ends = (cuts(stage, model, held_out, where) for where in ("inside", "end"))
    byte_level = params.query in ("byte_exact", "byte_fast")
    bits, lines = [], []
    for index, cut in enumerate(inside):
        following = cut.following[: max(params.following_bytes, len(cut.line) if byte_level else 0)]
        predictor = byte_model(params.query, model, cut.prompt, following)
        bits.append(following_bits(predictor, cut.following[: params.following_bytes]))
        if byte_level:
            written = writes_line(byte_model(params.query, model, cut.prompt, following), cut.line)
        else:
            written = strings_write_line(greedy_strings(params.query, model, cut.prompt, ends=True), cut.line)
        lines.append(100.0 * written)
        stage.progress(index + 1, len(inside) + len(ends))
    at_ends = []
    for index, cut in enumerate(ends):
        predictor = byte_model(params.query, model, cut.prompt, cut.following[:1])
        at_ends += following_bits(predictor, cut.following[:1])
        stage.progress(len(inside) + index + 1, len(inside) + len(ends))

    names = [cut.name for cut in inside]
    for distance, column in enumerate(np.array(bits).T):
        at = {"cut": "inside", "distance": distance}
        table.add_items("next_byte_bits", column.tolist(), unit="bits", at=at, items=names)
    at = {"cut": "end", "distance": 0}
    table.add_items("next_byte_bits", at_ends, unit="bits", at=at, items=[cut.name for cut in ends])
    table.add_items("rest_of_line_match", lines, unit="%", items=names)
    if byte_level:
        count_calls(params.query == "byte_exact", model, inside[: params.counted_prompts], params, table)


def cuts(stage: StageContext, model: AskedModel, held_out: HeldOut, where: str) -> list[Cut]:
    """Draw the prompts of a seed that are cut inside a token, or at the end of one."""
    params = stage.params
    generator = stream(stage.seed, f"cuts {where}")

    def take(passage: Passage) -> Cut | None:
        ends = token_ends(model.tokenizer.vocabulary, model.tokenizer.encode(passage.text))
        cut = take_cut(passage, ends, where == "inside", params.shortest_prompt, params.following_bytes, generator)
        # Room for a continuation byte by byte.
        fits = cut and len(model.tokenizer.encode(cut.prompt)) + max(params.following_bytes, len(cut.line)) < model.room
        return cut if fits else None

    return held_out.wanted(params.prompts, take, generator)


def count_calls(truncated: bool, model: AskedModel, prompts: list[Cut], params, table: MetricTable) -> None:
    """Stream behind some prompts, call by call, with keys and values kept."""
    first, later = [], 0
    for cut in prompts:
        session = model.session()
        predictor = ByteStream(model.rows(session.next, truncated=truncated), cut.prompt)
        first.append(session.calls)
        for symbol in cut.following[: params.following_bytes]:
            predictor.log_probabilities()
            predictor.append(symbol)
        later += session.calls - first[-1]
    table.add_items("first_calls", first, unit="calls", items=[cut.name for cut in prompts])
    bytes_read = len(prompts) * params.following_bytes
    table.add("calls_per_byte", later / bytes_read, unit="calls/byte", samples=bytes_read, normaliser="bytes")
