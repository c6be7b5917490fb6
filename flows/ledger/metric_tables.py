"""Every metric of a variant as a table, with the hygiene of its numbers: unit, items, normaliser, masked share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flows.declarations.metric import Metric
from flows.ledger.measurements import parse_condition
from flows.ledger.results import Summary
from flows.ledger.verdicts import to_precision

WIDE = 12
"""Conditions beside each other before a table is folded away."""

DIRECTION = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def metric_tables(
    facts: Mapping[str, Metric], summaries: Sequence[Summary], arms: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one table for each metric measured at several conditions: arms below, conditions beside each other.

    Args:
        facts: What the study says about its metrics.
        summaries: Every metric of every arm over its seeds.
        arms: Arms in their order.
    """
    tables = []
    for metric, chosen in _by_metric(summaries):
        conditions = sorted(dict.fromkeys(summary.at for summary in chosen), key=_natural)
        if len(conditions) < 2:
            continue
        cells = {(summary.arm, summary.at): summary for summary in chosen}
        present = [arm for arm in arms if any((arm, at) in cells for at in conditions)]
        seeds = max(summary.n for summary in chosen)
        keys = {tuple(parse_condition(at)) for at in conditions}
        along = next(iter(keys))[0] if len(keys) == 1 and len(next(iter(keys))) == 1 else ""
        tables.append(
            {
                **_words(metric, facts.get(metric), chosen),
                "along": along,
                "conditions": [parse_condition(at)[along] if along else at.replace(",", ", ") for at in conditions],
                "rows": [_row(arm, [cells.get((arm, at)) for at in conditions], seeds) for arm in present],
                "seeds": seeds,
                "folded": len(conditions) > WIDE,
            }
        )
    return tables


def single_table(
    facts: Mapping[str, Metric], summaries: Sequence[Summary], arms: Sequence[str]
) -> dict[str, Any] | None:
    """Return one table of all metrics that were measured at one condition each: arms below, metrics beside each other.

    Args:
        facts: What the study says about its metrics.
        summaries: Every metric of every arm over its seeds.
        arms: Arms in their order.
    """
    chosen = [(metric, found) for metric, found in _by_metric(summaries) if len({one.at for one in found}) == 1]
    if not chosen:
        return None
    cells = {(summary.arm, metric): summary for metric, found in chosen for summary in found}
    metrics = [metric for metric, _ in chosen]
    present = [arm for arm in arms if any((arm, metric) in cells for metric in metrics)]
    seeds = max(summary.n for _, found in chosen for summary in found)
    return {
        "columns": [
            {**_words(metric, facts.get(metric), found), "at": found[0].at.replace(",", ", ")}
            for metric, found in chosen
        ],
        "rows": [_row(arm, [cells.get((arm, metric)) for metric in metrics], seeds) for arm in present],
        "seeds": seeds,
    }


def _by_metric(summaries: Sequence[Summary]) -> list[tuple[str, list[Summary]]]:
    names = dict.fromkeys(summary.metric for summary in summaries)
    return [(metric, [summary for summary in summaries if summary.metric == metric]) for metric in names]


def _words(metric: str, fact: Metric | None, chosen: Sequence[Summary]) -> dict[str, str]:
    return {
        "metric": metric,
        "says": fact.says if fact else "",
        "better": DIRECTION[fact.better] if fact else "",
        "unit": chosen[0].unit,
        "hygiene": hygiene(chosen),
    }


def _row(arm: str, cells: Sequence[Summary | None], seeds: int) -> dict[str, Any]:
    """One arm; a number of seeds that its cells share and the table does not stands beside its name."""
    counts = {summary.n for summary in cells if summary is not None}
    shared = next(iter(counts)) if len(counts) == 1 else seeds
    return {
        "arm": arm,
        "seeds": "" if shared == seeds else f"{shared} seed{'' if shared == 1 else 's'}",
        "cells": [_cell(summary, shared) for summary in cells],
    }


def hygiene(summaries: Sequence[Summary]) -> str:
    """Say what stands behind numbers: `2,000 test items, divided by pixels, nothing masked`."""
    samples = sorted({summary.samples for summary in summaries})
    words = f"{samples[0]:,}" if len(samples) == 1 else f"{samples[0]:,} to {samples[-1]:,}"
    parts = [f"{words} test item{'' if samples == [1] else 's'}"]
    parts += normaliser_words(summaries)
    return ", ".join(parts)


def normaliser_words(summaries: Sequence[Summary]) -> list[str]:
    """Say what numbers were divided by and how much was masked."""
    parts = []
    normalisers = sorted({summary.normaliser for summary in summaries if summary.normaliser})
    if normalisers:
        parts.append(f"divided by {', '.join(normalisers)}")
    masked = max((summary.masked_share for summary in summaries), default=0.0)
    parts.append("nothing masked" if masked == 0 else f"up to {masked:.1%} masked or padded")
    return parts


def cell_words(summary: Summary) -> tuple[str, str]:
    """Spell a mean and half its interval; the latter is empty where there is none."""
    half = (summary.high - summary.low) / 2
    # A constant without a known sampling variance has no interval, which is not an interval of zero width.
    known = math.isfinite(half) and (half > 0 or summary.n > 1)
    return to_precision(summary.mean, half), to_precision(half, half) if known else ""


def _cell(summary: Summary | None, seeds: int) -> dict[str, str] | None:
    if summary is None:
        return None
    value, half = cell_words(summary)
    return {"value": value, "half": half, "seeds": f"n = {summary.n}" if summary.n != seeds else ""}


def _natural(at: str) -> list[tuple[str, float, str]]:
    """Order conditions by their keys' numbers, not by their spelling."""
    return [(key, _number_or(value), value) for key, value in parse_condition(at).items()]


def _number_or(value: str) -> float:
    return float(value) if re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value) else math.inf
