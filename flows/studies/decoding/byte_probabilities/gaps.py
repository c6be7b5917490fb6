"""Filling in the middle: whether greedy decoding writes what was taken out of a line.

Byte arms and tokens with or without healing read suffix, prefix, middle, where the middle goes on with the prefix;
token_psm reads prefix, suffix, middle, where a special token stands between. Every arm is told how many bytes the
middle has: what it writes is compared over these, and the end of the text is no choice.
"""

from __future__ import annotations

import numpy as np

from components.language.fill_in_middle import prefix_suffix, suffix_prefix
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.decoding.byte_probabilities.passages import Gap, HeldOut, Passage, take_gap, token_ends
from flows.studies.decoding.byte_probabilities.predictors import (
    AskedModel,
    byte_model,
    greedy_strings,
    strings_write_span,
    writes_span,
)
from flows.studies.decoding.sources import stream

_SPECIALS = 3  # <pre>, <suf>, <mid>


def measure(stage: StageContext, model: AskedModel, held_out: HeldOut, table: MetricTable) -> None:
    """Measure one arm on the gaps, which all arms and seeds share."""
    gaps = draw(stage, model, held_out)
    matches = []
    for index, gap in enumerate(gaps):
        matches.append(100.0 * fills(stage.params.query, model, gap))
        stage.progress(index + 1, len(gaps))
    inside = np.array([_ends_inside(model, gap) for gap in gaps])
    names = [gap.name for gap in gaps]
    table.add_items("middle_match", matches, unit="%", items=names)
    for where, chosen in (("inside", inside), ("end", ~inside)):
        if chosen.any():
            kept = np.flatnonzero(chosen)
            values, items = [matches[index] for index in kept], [names[index] for index in kept]
            table.add_items("middle_match", values, unit="%", at={"prefix": where}, items=items)


def draw(stage: StageContext, model: AskedModel, held_out: HeldOut) -> list[Gap]:
    """Draw the gaps: the same for every seed, as far as they fit its model."""
    params = stage.params
    generator = stream(0, "gaps")

    def take(passage: Passage) -> Gap | None:
        gap = take_gap(passage, params.shortest_gap, params.longest_gap, generator)
        if gap is None:
            return None
        tokens = sum(len(model.tokenizer.encode(part)) for part in (gap.prefix, gap.suffix))
        return gap if tokens + _SPECIALS + len(gap.middle) < model.room else None

    return held_out.wanted(params.gaps, take, generator)


def fills(query: str, model: AskedModel, gap: Gap) -> bool:
    """Tell whether an arm fills a gap with the true bytes."""
    encode = model.tokenizer.encode
    if query == "token_psm":
        context = prefix_suffix(gap.prefix, gap.suffix, encode, model.specials)
        return strings_write_span(greedy_strings(query, model, "", context, ends=False), gap.middle)
    context = suffix_prefix(gap.suffix, encode, model.specials)
    if query in ("byte_exact", "byte_fast"):
        return writes_span(byte_model(query, model, gap.prefix, gap.middle, context), gap.middle)
    return strings_write_span(greedy_strings(query, model, gap.prefix, context, ends=False), gap.middle)


def _ends_inside(model: AskedModel, gap: Gap) -> bool:
    ends = token_ends(model.tokenizer.vocabulary, model.tokenizer.encode(gap.prefix + gap.middle))
    return len(gap.prefix) not in ends
