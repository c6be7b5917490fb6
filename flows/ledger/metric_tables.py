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
"""Columns of a table before it is folded away."""
TALL = 24
"""Rows of a table before it is folded away."""

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
        conditions = {summary.at: parse_condition(summary.at) for summary in chosen}
        if len(conditions) < 2:
            continue
        along = _along(list(conditions.values()))
        columns = sorted(
            {at.get(along, "") for at in conditions.values()}, key=lambda value: (_number_or(value), value)
        )
        cells = {
            (summary.arm, _rest(conditions[summary.at], along), conditions[summary.at].get(along, "")): summary
            for summary in chosen
        }
        rests = sorted({_rest(at, along) for at in conditions.values()}, key=_natural)
        seeds = max(summary.n for summary in chosen)
        rows = [
            _row(arm, [cells.get((arm, rest, column)) for column in columns], seeds) | {"at": rest.replace(",", ", ")}
            for arm in arms
            for rest in rests
            if any((arm, rest, column) in cells for column in columns)
        ]
        tables.append(
            {
                **_words(metric, facts.get(metric), chosen),
                "along": along,
                "conditions": columns,
                "rows": rows,
                "seeds": seeds,
                "folded": len(columns) > WIDE or len(rows) > TALL,
            }
        )
    return tables


def _along(conditions: Sequence[Mapping[str, str]]) -> str:
    """The key whose values stand beside each other: numbers before words, then the one with the most values."""
    keys = dict.fromkeys(key for condition in conditions for key in condition)
    values = {key: {condition[key] for condition in conditions if key in condition} for key in keys}

    def worth(key: str) -> tuple[bool, int]:
        return all(math.isfinite(_number_or(value)) for value in values[key]) and len(values[key]) > 1, len(values[key])

    return max(keys, key=worth)


def _rest(condition: Mapping[str, str], along: str) -> str:
    return ",".join(f"{key}={value}" for key, value in condition.items() if key != along)


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
