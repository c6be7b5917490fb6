"""Ask a model about scenes it never saw, at every number of visual tokens, and again with zeros in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
import torch
from torch import Tensor

from components.bases import load_model
from components.compression import pool
from components.compression.nested_pool import language_flops, oracle, scaled
from components.data.images import encode_png
from components.metrics.tables import MetricTable, write_parquet
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.vlm import VLM
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.multimodal.models import Asked, asked

GROUPS = ("general", "scene", "read")
_COARSE = 9  # tokens that the drop from the finest grid is taken at
_BATCH = 32
_DRAWS = 4  # random stream of this stage


def evaluate(stage: StageContext) -> None:
    """Write accuracies, with and without the picture, at every scale; the oracle's where the arm asks for it."""
    params = stage.params
    model = load_model(stage.inputs["train"]).to(stage.device)
    given = asked(stage, model, "test", params.test_scenes)
    scales = sorted(params.test_scales, reverse=True)
    table, said = MetricTable(), {}
    right, blind = {}, {}
    for done, scale in enumerate(scales):
        blind[scale] = _answers(stage, model, given, _zeros(stage, model, scale))[0]
        right[scale], said[scale] = _reduced(stage, model, given, scale, table)
        stage.progress(done + 1, len(scales))
    if params.oracle:
        _oracle(given, right, blind, table)
    else:
        _accuracies(given, right, blind, table)
        _drops(given, right, table)
    words = int(given.texts.lengths.sum()) / len(given.scenes.questions)
    for scale in scales:
        flops = language_flops(model, scale, round(words))
        table.add("language_gflops", flops / 1e9, unit="GFLOP", at={"tokens": scale}, samples=1)
    table.write(stage.output)
    _samples(stage, model, given, said)


def _reduced(stage, model: VLM, given: Asked, scale: int, table: MetricTable) -> tuple[Tensor, Tensor]:
    """Return how often each question is answered rightly, 0 to 1, (Q,), and the words said, (Q,), at a scale."""
    params = stage.params
    if params.reduce == "pool" or scale == model.rows**2:
        return _answers(stage, model, given, _pooled(stage, model, given, scale))
    draws = params.random_draws if params.reduce == "random" else 1
    places = [_places(stage, model, len(given.scenes), scale, draw) for draw in range(draws)]
    kept = [_answers(stage, model, given, _selected(stage, model, given, each, True)) for each in places]
    moved = [_answers(stage, model, given, _selected(stage, model, given, each, False))[0] for each in places]
    _by_group(given, "accuracy_renumbered", 100 * torch.stack(moved).mean(0), "percent", scale, table)
    return torch.stack([each for each, _ in kept]).mean(0), kept[0][1]


Sequences = Callable[[Tensor, PackedBatch], Tensor]
"""Logits where something is predicted, (M, V), of scenes (B,) and their packed questions."""


def _pooled(stage, model: VLM, given: Asked, scale: int) -> Sequences:
    side = stage.params.pool_side
    return lambda rows, text: model(scaled(model, given.features[rows].to(stage.device), scale, side), text)


def _zeros(stage, model: VLM, scale: int) -> Sequences:
    width = model.language.config.width
    return lambda rows, text: model(torch.zeros(len(rows), scale, width, device=stage.device), text)


def _selected(stage, model: VLM, given: Asked, places: Tensor, keep: bool) -> Sequences:
    """Read only the tokens at some places (N, count); they keep their positions, or move up to the front."""

    def read(rows: Tensor, text: PackedBatch) -> Tensor:
        finest = model.visual(given.features[rows].to(stage.device))
        own = places[rows].to(stage.device)
        where = {"places": own + 1, "text_place": finest.shape[1] + 1} if keep else {}
        return model.predicted(model.read(model.prepare(pool.kept(finest, own), text, **where)), text)

    return read


def _places(stage, model: VLM, scenes: int, scale: int, draw: int) -> Tensor:
    grid = torch.empty(scenes, model.rows**2, 0)
    if stage.params.reduce == "random":
        generator = torch.Generator().manual_seed(derive_seed(stage.seed, _DRAWS, scale, draw))
        return pool.random(grid, scale, generator)
    select = {"uniform": pool.uniform, "sequential": pool.sequential}[stage.params.reduce]
    return select(grid, scale).expand(scenes, -1)


@torch.no_grad()
def _answers(stage, model: VLM, given: Asked, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Return whether each question is answered rightly, float64 (Q,), and the word said, int64 (Q,)."""
    right, words = [], []
    for rows in torch.arange(len(given.scenes)).split(_BATCH):
        text = PackedBatch(*(part.to(stage.device) for part in given.texts.batch(rows)))
        said = sequences(rows, text).argmax(-1)
        right.append((said == text.targets).cpu())
        words.append(said.cpu())
    return torch.cat(right).double(), torch.cat(words)


def _by_group(given: Asked, metric: str, values: Tensor, unit: str, scale: int, table: MetricTable) -> None:
    names = given.names()
    for group in GROUPS:
        chosen = given.where(group)
        if chosen.any():
            items = [name for name, own in zip(names, chosen.tolist(), strict=True) if own]
            at = {"questions": group, "tokens": scale}
            table.add_items(metric, values[chosen].tolist(), unit=unit, at=at, items=items)


def _accuracies(given: Asked, right: Mapping[int, Tensor], blind: Mapping[int, Tensor], table: MetricTable) -> None:
    kinds = given.scenes.questions["type"]
    for scale, values in right.items():
        _by_group(given, "accuracy", 100 * values, "percent", scale, table)
        _by_group(given, "above_blind", 100 * (values - blind[scale]), "points", scale, table)
        for kind in sorted(kinds.unique()):
            own = values[torch.from_numpy((kinds == kind).to_numpy().copy())]
            share = float(own.mean())
            table.add(
                "accuracy_by_type",
                100 * share,
                unit="percent",
                at={"tokens": scale, "type": kind},
                samples=len(own),
                variance=1e4 * share * (1 - share) / len(own),
            )


def _drops(given: Asked, right: Mapping[int, Tensor], table: MetricTable) -> None:
    """Add what 9 tokens lose against the finest grid, by group, and how much more of it is lost on `read`."""
    finest = max(right)
    if _COARSE not in right or finest == _COARSE:
        return
    names, lost = given.names(), 100 * (right[finest] - right[_COARSE])
    parts = {}
    for group in GROUPS:
        chosen = given.where(group)
        if chosen.any():
            parts[group] = lost[chosen]
            items = [name for name, own in zip(names, chosen.tolist(), strict=True) if own]
            table.add_items("drop", parts[group].tolist(), unit="points", at={"questions": group}, items=items)
    if {"scene", "read"} <= parts.keys() and min(len(parts["scene"]), len(parts["read"])) > 1:
        scene, read = parts["scene"], parts["read"]
        table.add(
            "drop_excess",
            float(read.mean() - 3 * scene.mean()),
            unit="points",
            samples=len(scene) + len(read),
            variance=float(read.var() / len(read) + 9 * scene.var() / len(scene)),
        )


def _oracle(given: Asked, right: Mapping[int, Tensor], blind: Mapping[int, Tensor], table: MetricTable) -> None:
    """Add the oracle over scales, of answers with the picture and of answers without."""
    names, scales = given.names(), list(right)
    found = oracle(torch.stack([right[scale] for scale in scales]) > 0.5, scales)
    gains = [_gain(values) for values in (right, blind)]
    table.add_items("oracle_accuracy", (100 * found.right.double()).tolist(), unit="percent", items=names)
    table.add_items("oracle_tokens", found.tokens.double().tolist(), unit="tokens", items=names)
    table.add_items("oracle_gain", gains[0].tolist(), unit="points", items=names)
    table.add_items("oracle_gain_above_blind", (gains[0] - gains[1]).tolist(), unit="points", items=names)


def _gain(right: Mapping[int, Tensor]) -> Tensor:
    """Return, in points and for each question, right at any scale minus right at the scale that is best on average."""
    every = torch.stack(list(right.values()))
    return 100 * (every.amax(0) - every[int(every.mean(1).argmax())])


def _samples(stage, model: VLM, given: Asked, said: Mapping[int, Tensor]) -> None:
    """Keep some scenes with what was asked and answered, for figures."""
    count = min(stage.params.sample_scenes, len(given.scenes))
    answers = {f"said_{scale}": [model.words.tokens[word] for word in words.tolist()] for scale, words in said.items()}
    frame = given.scenes.questions.with_columns(**{name: pl.Series(values) for name, values in answers.items()})
    pictures = [encode_png(picture) for picture in given.scenes.pictures[:count]]
    shown = frame.filter(pl.col("row") < count).with_columns(
        pl.col("row").replace_strict(dict(enumerate(pictures)), return_dtype=pl.Binary).alias("image")
    )
    write_parquet(shown, stage.output / "samples.parquet")
