"""Visual tokens dropped at every layer in turn, and what rules with other thresholds and layers would have done.

A rule that is asked at one layer either drops there or never, so that its answers are among those of the sweep.

Letters: `L` layers, `Q` questions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.compression import layer_drop
from components.metrics.tables import MetricTable
from components.multimodal.vlm import VLM
from flows.studies.context import StageContext
from flows.studies.token_reduction.todre import measures
from flows.studies.token_reduction.todre.reading import BATCH, Pictures, batch_of, prepared, selection

_FALLEN = 0.1  # attention to visual tokens below which it counts as fallen, the paper's threshold


@torch.no_grad()
def measure(stage: StageContext, model: VLM, given: Pictures, table: MetricTable) -> None:
    """Add accuracies behind a drop at each layer, attention to visual tokens, and the rules that follow from both."""
    about, depth = given.about, len(model.blocks)
    text_length = int(about.texts.lengths.sum()) / len(about.scenes.questions)
    for done, count in enumerate(stage.params.budgets):
        right, shares = _read(stage, model, given, count)
        for layer in range(depth + 1):
            at = {"layer": layer, "tokens": count}
            measures.add_groups(table, about, "dropped_accuracy", 100 * right[layer], unit="percent", at=at)
            measures.add_types(table, about, "dropped_by_type", 100 * right[layer], unit="percent", at=at)
            measures.add_groups(table, about, "drop_cost", 100 * (right[depth] - right[layer]), unit="points", at=at)
            visual = [count] * layer + [0] * (depth - layer)
            flops = measures.language_flops(model, visual, text_length)
            table.add("language_gflops", flops / 1e9, unit="GFLOP", at=at, samples=right.shape[1])
        add_migration(table, given, shares, count)
        _rules(stage, given, right, shares, count, table)
        _fallen(given, shares, count, table)
        stage.progress(done + 1, len(stage.params.budgets))


def add_migration(table: MetricTable, given: Pictures, shares: Tensor, count: int) -> None:
    """Add the attention from text to visual tokens, (L, Q), as a mean for every layer."""
    every = measures.chosen(given.about, "all")
    for layer, values in enumerate(shares):
        items = measures.by_scene(given.about, values, every)
        at = {"layer": layer, "tokens": count}
        measures.add_mean(table, "text_to_visual", items, unit="share", at=at, samples=len(values))


def _read(stage: StageContext, model: VLM, given: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Return right answers behind a drop at 0 .. L, float64 (L + 1, Q), and attention to visual tokens, (L, Q)."""
    select, right, shares = selection(stage, count), [], []
    for rows in torch.arange(len(given.about.scenes)).split(BATCH):
        text = batch_of(stage, given, rows)
        visual = model.visual(given.about.features[rows].to(stage.device))
        kept = select(visual, given.attention[rows].to(stage.device), count)
        sequences = prepared(model, visual, kept, text)
        states = layer_drop.read_each(model, sequences, text)
        said = torch.stack([model.predicted(each, text).argmax(-1) for each in states])
        right.append((said == text.targets).cpu())
        found = layer_drop.migrations(model, sequences, text, stage.params.rows)
        shares.append(torch.stack([each.text_to_visual for each in found]).cpu())
    return torch.cat(right, 1).double(), torch.cat(shares, 1)


def _rules(stage: StageContext, given: Pictures, right: Tensor, shares: Tensor, count: int, table: MetricTable) -> None:
    whole = right[-1]
    for layer in stage.params.swept_checks:
        for threshold in stage.params.swept_thresholds:
            fired = shares[layer] < threshold
            at = {"check": layer, "threshold": threshold, "tokens": count}
            ruled = torch.where(fired, right[layer], whole)
            cost = {"unit": "points", "at": at, "groups": ("all",)}
            measures.add_groups(table, given.about, "rule_cost", 100 * (whole - ruled), **cost)
            share = {"unit": "percent", "at": at, "groups": ("all",)}
            measures.add_groups(table, given.about, "rule_fired", 100 * fired.double(), **share)


def _fallen(given: Pictures, shares: Tensor, count: int, table: MetricTable) -> None:
    """Add where attention to visual tokens has fallen first, by type of question."""
    depth = len(shares)
    low = torch.cat([shares[1:] < _FALLEN, torch.ones_like(shares[:1], dtype=torch.bool)])
    first = 1 + low.to(torch.uint8).argmax(0)
    for layer in range(1, depth + 1):
        at = {"layer": layer, "tokens": count}
        share = 100 * (first == layer).double()
        measures.add_types(table, given.about, "fallen_by_type", share, unit="percent", at=at)
