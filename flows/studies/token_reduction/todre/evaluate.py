"""Ask a trained model about scenes with few visual tokens, chosen as an arm says, at every budget."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from components.bases import load_model
from components.compression import layer_drop
from components.compression.layer_drop import DropRule
from components.data.images import encode_png
from components.metrics.tables import MetricTable, write_parquet
from components.multimodal.vlm import VLM, Seeing
from flows.studies.context import StageContext
from flows.studies.token_reduction.questions import seeing
from flows.studies.token_reduction.todre import measures, sweep, timings
from flows.studies.token_reduction.todre.reading import BATCH, Pictures, Read, batch_of, pictures, read, reader


def evaluate(stage: StageContext) -> None:
    """Write accuracies, what was kept, and what it costs, for one arm and one base."""
    params = stage.params
    found = seeing(stage)
    if "train" in stage.inputs:
        found = Seeing(load_model(stage.inputs["train"]).to(stage.device), found.encoder)
    model = found.model
    given = pictures(stage, found)
    table = MetricTable()
    whole = model.rows**2
    budgets = {"all": (whole,), "blind": (0,)}.get(params.selection, params.budgets)
    if params.drop == "sweep":
        sweep.measure(stage, model, given, table)
    else:
        visual = _visual(stage, model, given)
        for done, count in enumerate(budgets):
            reads = [read(stage, given, reader(stage, model, given, count, draw)) for draw in range(params.draws)]
            _accuracies(table, given, reads, count)
            _costs(table, stage, model, given, reads[0], count)
            if reads[0].kept is not None:
                _choices(table, given, visual, [each.kept for each in reads], count, params.selection)
            if done == 0:
                _samples(stage, given, reads[0], model.rows)
            stage.progress(done + 1, len(budgets))
    if params.selection == "all":
        _migration(stage, model, given, table)
    table.write(stage.output)
    if params.timed:
        timings.measure(stage, model, given, budgets[0])


@torch.no_grad()
def _visual(stage: StageContext, model: VLM, given: Pictures) -> Tensor:
    """Return the visual tokens of all scenes, (S, N, D), on the CPU."""
    parts = [model.visual(part.to(stage.device)).cpu() for part in given.about.features.split(BATCH)]
    return torch.cat(parts)


def _accuracies(table: MetricTable, given: Pictures, reads: Sequence[Read], count: int) -> None:
    right = 100 * torch.stack([each.right for each in reads]).mean(0)
    at = {"tokens": count}
    measures.add_groups(table, given.about, "accuracy", right, unit="percent", at=at)
    measures.add_types(table, given.about, "accuracy_by_type", right, unit="percent", at=at)


def _costs(table: MetricTable, stage: StageContext, model: VLM, given: Pictures, found: Read, count: int) -> None:
    """Add what reading costs, as means over questions, and where the rule fired."""
    params, depth = stage.params, len(model.blocks)
    questions = len(found.right)
    text = int(given.about.texts.lengths.sum()) / questions
    at = {"tokens": count}
    visual = [model.rows**2 if params.selection == "blind" else count] * depth
    if params.selection == "fastv":
        visual[:2] = [model.rows**2] * min(2, depth)
    extra = 0.0
    if found.layers is not None:
        fired = 100 * (found.layers < depth).double()
        measures.add_groups(table, given.about, "fired", fired, unit="percent", at=at)
        measures.add_types(table, given.about, "fired_by_type", fired, unit="percent", at=at)
        rule = DropRule(params.check_layers, params.threshold, params.rows)
        asked = sum(float((found.layers >= layer).double().mean()) for layer in params.check_layers)
        extra = asked * measures.rule_flops(model, rule, count, text)
    stays = torch.full((questions,), depth) if found.layers is None else found.layers
    flops, kept = 0.0, 0.0
    for layer, times in zip(*(each.tolist() for each in stays.unique(return_counts=True)), strict=True):
        left = [*visual[:layer], *[0] * (depth - layer)]
        flops += times / questions * measures.language_flops(model, left, text)
        kept += times / questions * measures.cache_kib(model, left, text)
    table.add("language_gflops", (flops + extra) / 1e9, unit="GFLOP", at=at, samples=questions)
    table.add("cache_kib", kept, unit="KiB", at=at, samples=questions)


def _choices(
    table: MetricTable, given: Pictures, visual: Tensor, kept: Sequence[Tensor], count: int, selection: str
) -> None:
    """Add what a choice shows of the objects, and how it covers the tokens; means over draws."""
    if selection == "tome":
        # Merged tokens speak of more than the places that they grew from.
        return
    at, objects = {"tokens": count}, given.objects
    scene = given.about.scenes.questions["row"].to_torch().long()
    hits = []
    for choice in kept:
        if selection == "fastv":
            own = type(objects)(objects.shown[scene], objects.exists[scene]).hit(choice).double()
            sums = torch.zeros(len(visual), dtype=torch.float64).index_add(0, scene, own)
            hits.append(sums / torch.bincount(scene, minlength=len(visual)))
        else:
            hits.append(objects.hit(choice).double())
    items = measures.ratio_items(100 * torch.stack(hits).mean(0), objects.exists.sum(1))
    table.add_items("objects_hit", items.tolist(), unit="percent", at=at)
    if selection != "fastv":
        measures.add_choice(table, visual, kept, at)


@torch.no_grad()
def _migration(stage: StageContext, model: VLM, given: Pictures, table: MetricTable) -> None:
    """Add the attention from text to visual tokens in every layer of the whole model."""
    shares = []
    for rows in torch.arange(len(given.about.scenes)).split(BATCH):
        text = batch_of(stage, given, rows)
        sequences = model.prepare(model.visual(given.about.features[rows].to(stage.device)), text)
        found = layer_drop.migrations(model, sequences, text, stage.params.rows)
        shares.append(torch.stack([each.text_to_visual for each in found]).cpu())
    sweep.add_migration(table, given, torch.cat(shares, 1), model.rows**2)


def _samples(stage: StageContext, given: Pictures, found: Read, rows: int) -> None:
    """Keep some scenes, which cells of them were read at the first budget, and where the class token looks."""
    scenes = given.about.scenes
    count = min(stage.params.sample_scenes, len(scenes))
    whole = found.kept is None or len(found.kept) != len(scenes)
    frame = pl.DataFrame(
        {
            "scene": range(count),
            "image": [encode_png(picture) for picture in scenes.pictures[:count]],
            "rows": [rows] * count,
            "attention": given.attention[:count].tolist(),
            "kept": [[]] * count if whole else found.kept[:count].tolist(),
        },
        schema_overrides={"kept": pl.List(pl.Int64), "attention": pl.List(pl.Float32), "image": pl.Binary},
    )
    write_parquet(frame, stage.output / "samples.parquet")
