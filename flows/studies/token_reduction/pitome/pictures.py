"""Merging inside two trained encoders: one classifies images, one finds the captions of scenes.

Letters: `B` pictures of a batch, `N` pictures, `P` patches, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from components.analysis.spectral_distance import WEIGHTS, spectral_distance, weights
from components.bases import load_model
from components.compression.flops import counted
from components.compression.merging.encoder import Reduced, reduced
from components.compression.merging.plan import Reducer, destinations, weighted_mean
from components.data import tables
from components.data.images import decode_images, encode_png
from components.data.pixels import to_unit
from components.metrics.latency import latency
from components.metrics.tables import MetricTable, write_parquet
from components.multimodal.scene_table import read_scenes
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.token_reduction.methods import reducer
from flows.studies.token_reduction.params import base_name
from flows.studies.token_reduction.questions import given

_BATCH = 100
_RANDOM = 21  # random stream of this stage
_TIMED_BATCHES = (1, 32)


@dataclass(frozen=True)
class Task:
    """What an encoder is asked about pictures.

    Attributes:
        name: "classification" or "retrieval".
        encoder: The encoder, on the stage's device.
        pictures: uint8 (N, 3, H, W).
        right: Whether pictures are answered rightly, bool (B,), from normalised tokens (B, 1 + n, D) and the numbers of
            the pictures, int64 (B,).
    """

    name: str
    encoder: Any
    pictures: Tensor
    right: Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def measure(stage: StageContext) -> None:
    """Write accuracies at every keep ratio, what they cost, and how far features and graphs have moved."""
    params, table = stage.params, MetricTable()
    method = reducer(params)
    ratios = (*params.ratios, *params.extra_ratios)
    tasks = (_classification(stage), _retrieval(stage))
    samples, timings = [], []
    for number, task in enumerate(tasks):
        right: dict[float, Tensor] = {}
        for index, ratio in enumerate(ratios):
            generator = _generator(stage, number, index)
            # Without a method every ratio is the whole network.
            if method is not None or not right:
                right[ratio] = _answers(stage, task, method, ratio, generator)
            else:
                right[ratio] = right[ratios[0]]
            at = {"task": task.name, "ratio": ratio}
            table.add_items("accuracy", right[ratio].tolist(), unit="percent", at=at)
            _observe(stage, task, method, ratio, _generator(stage, number, index), table)
            samples += _samples(stage, task, method, ratio, _generator(stage, number, index))
            timings += _timings(stage, task, method, ratio, _generator(stage, number, index))
            stage.progress(number * len(ratios) + index + 1, len(tasks) * len(ratios))
        mean = torch.stack([right[ratio] for ratio in params.ratios]).mean(0)
        table.add_items("mean_accuracy", mean.tolist(), unit="percent", at={"task": task.name})
    table.write(stage.output)
    write_parquet(pl.DataFrame(samples), stage.output / "samples.parquet")
    if timings:
        write_parquet(pl.DataFrame(timings), stage.log / "timings.parquet")


def _classification(stage: StageContext) -> Task:
    params = stage.params
    model = load_model(given(stage, f"bases/{base_name(params.classifier, stage.seed)}")).to(stage.device)
    frame = tables.read_split(given(stage, "data/cifar10"), "test", ["image", "label"]).head(params.test_images)
    labels = torch.from_numpy(frame["label"].to_numpy().copy()).long()

    def right(tokens: Tensor, rows: Tensor) -> Tensor:
        return model.logits(tokens).argmax(1).cpu() == labels[rows]

    return Task("classification", model, decode_images(frame["image"].to_list()), right)


def _retrieval(stage: StageContext) -> Task:
    params = stage.params
    model = load_model(given(stage, f"bases/{base_name(params.retriever, stage.seed)}")).to(stage.device)
    scenes = read_scenes(
        given(stage, f"data/{params.dataset}"), "test", params.gallery_scenes, model.encoder.patch_size
    )  # fmt: skip
    words, lengths = model.words.table(scenes.captions)
    texts = torch.cat(
        [
            model.text_vectors(
                torch.from_numpy(words[rows.numpy()]).long().to(stage.device),
                torch.from_numpy(lengths[rows.numpy()]).to(stage.device),
            )
            for rows in torch.arange(len(scenes)).split(_BATCH)
        ]
    )
    # Two scenes may have the same words; either caption is then right.
    wordings = {caption: number for number, caption in enumerate(dict.fromkeys(scenes.captions))}
    same = torch.tensor([wordings[caption] for caption in scenes.captions])

    def right(tokens: Tensor, rows: Tensor) -> Tensor:
        closest = (model.image_vectors(tokens) @ texts.T).argmax(1).cpu()
        return same[closest] == same[rows]

    return Task("retrieval", model.encoder, scenes.pictures[: params.test_scenes], right)


def _generator(stage: StageContext, task: int, ratio: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(stage.seed, _RANDOM, task, ratio))


def _run(stage: StageContext, task: Task, pictures: Tensor, method: Reducer | None, ratio: float, generator) -> Reduced:
    """Return the reduced tokens of some pictures, normalised."""
    every = [1.0 if method is None else ratio] * len(task.encoder.blocks)
    found = reduced(task.encoder, to_unit(pictures.to(stage.device)), method, every, generator=generator)
    return found._replace(tokens=task.encoder.norm(found.tokens))


def _answers(stage: StageContext, task: Task, method: Reducer | None, ratio: float, generator) -> Tensor:
    """Return 100 for each picture that is answered rightly and 0 for the others, float64 (N,)."""
    parts = []
    for rows in torch.arange(len(task.pictures)).split(_BATCH):
        tokens = _run(stage, task, task.pictures[rows], method, ratio, generator).tokens
        parts.append(task.right(tokens, rows))
    return 100 * torch.cat(parts).double()


def _observe(stage: StageContext, task: Task, method: Reducer | None, ratio: float, generator, table) -> None:
    """Add operations, numbers of tokens, drift of the mean feature and spectral distances of every block."""
    at = {"task": task.name, "ratio": ratio}
    one = task.pictures[:1]
    operations = counted(lambda: _run(stage, task, one, method, ratio, generator))
    table.add("gflops", operations / 1e9, unit="GFLOP", at=at, samples=1)
    pictures = task.pictures[: stage.params.observed_images]
    found = _run(stage, task, pictures, method, ratio, generator)
    table.add("tokens", found.tokens.shape[1] - 1, unit="tokens", at=at, samples=1)
    if method is None:
        return
    whole = _run(stage, task, pictures, None, 1.0, None).tokens[:, 1:].mean(1)
    sizes = None if found.sizes is None else found.sizes[:, 1:]
    drift = 1 - F.cosine_similarity(weighted_mean(found.tokens[:, 1:], sizes).double(), whole.double(), dim=1)
    table.add_items("feature_drift", drift.tolist(), unit="", at=at)
    for layer, step in enumerate(found.steps):
        left = step.plan.kept.shape[1]
        table.add("tokens", left, unit="tokens", at={**at, "layer": layer}, samples=1)
        # A dropped token belongs to no group, and a graph of dropped tokens to no spectrum.
        if not step.plan.average:
            continue
        for kind in WEIGHTS:
            graph = weights(step.metric.cpu(), kind)
            values = spectral_distance(graph, destinations(step.plan).cpu()) / graph.shape[-1]
            table.add(
                "spectral_distance_of_images",
                float(values.mean()),
                unit="",
                at={**at, "layer": layer, "weight": kind},
                samples=len(values),
                variance=float(values.var() / len(values)) if len(values) > 1 else None,
                normaliser="tokens",
            )


def _samples(stage: StageContext, task: Task, method: Reducer | None, ratio: float, generator) -> list[dict]:
    """Return some pictures with what became of each of their patches."""
    pictures = task.pictures[: stage.params.sample_scenes]
    found = _run(stage, task, pictures, method, ratio, generator)
    groups = found.groups(task.encoder.patches).tolist()
    return [
        {"task": task.name, "ratio": ratio, "row": row, "image": encode_png(picture), "groups": groups[row]}
        for row, picture in enumerate(pictures)
    ]


def _timings(stage: StageContext, task: Task, method: Reducer | None, ratio: float, generator) -> list[dict]:
    rows = []
    for batch in _TIMED_BATCHES if stage.params.timing_runs else ():
        pictures = task.pictures[:1].expand(batch, -1, -1, -1).to(stage.device)
        found = latency(
            lambda pictures=pictures: _run(stage, task, pictures, method, ratio, generator),
            stage.params.timing_runs,
            stage.device,
        )
        facts = {"task": task.name, "ratio": ratio, "batch": batch, "device": stage.device}
        rows.append({**facts, "threads": torch.get_num_threads(), **found._asdict()})
    return rows
