"""What one token stands for on scenes whose objects and parts are known.

Two levels of labels: whole objects by their class (the shape), and parts, the body or the mark of an object of a class.
The background has a label of its own at both.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image

from components.analysis.document_bootstrap import document_weights, drawn_documents
from components.analysis.granularity import (
    agreement,
    contingencies,
    majority_labels,
    one_segment_share,
    permuted_within_images,
    resampled_ami,
)
from components.data import tables
from components.data.images import decode_images
from components.data.scenes.rendering import MARK
from components.metrics.tables import MetricTable
from flows.studies.analysis.params import EvaluateParams
from flows.studies.analysis.streams import data_directory, image_tokens, numbers
from flows.studies.context import StageContext

LEVELS = ("whole", "part")


def measure_scenes(stage: StageContext, table: MetricTable, tokenizer: Any, corpus: str) -> None:
    """Add how tokens agree with objects and with parts, the null of each level, and which level agrees more."""
    params: EvaluateParams = stage.params
    columns = ["scene", "image", "mask", "part", "objects"]
    frame = tables.read_split(data_directory(stage, corpus), "test", columns).head(params.granularity_scenes)
    images = decode_images(frame["image"].to_list())
    with torch.no_grad():
        tokens = image_tokens(tokenizer, images, stage.device).flatten(1).numpy()
    labels, segments = labels_of(frame, tokenizer.rows)
    generator = numbers(stage.seed, "permuted labels")
    drawn = drawn_documents(len(tokens), params.resamples, numbers(stage.seed, "bootstrap of scenes"))
    weights, resampled, measured = document_weights(drawn, len(tokens)), {}, {}
    for level in LEVELS:
        at, scenes = {"level": level}, len(tokens)
        counted = contingencies(tokens, labels[level])
        found = agreement(counted.sum(0))
        resampled[level], measured[level] = resampled_ami(counted, weights), found.ami
        nothing = contingencies(tokens, permuted_within_images(labels[level], generator))
        null, null_resampled = agreement(nothing.sum(0)).ami, resampled_ami(nothing, weights)
        for name in ("homogeneity", "completeness", "v_measure"):
            table.add(name, getattr(found, name), unit="", at=at, samples=scenes)
        differences = (
            ("ami", found.ami, resampled[level]),
            ("ami_null", null, null_resampled),
            ("ami_above_null", found.ami - null, resampled[level] - null_resampled),
        )
        for name, value, spread in differences:
            table.add(name, value, unit="", at=at, samples=scenes, variance=float(spread.var(ddof=1)))
        share = one_segment_share(tokens, segments[level])
        by_chance = one_segment_share(tokens, permuted_within_images(segments[level], generator))
        table.add("one_segment_share", share, unit="share", at=at, samples=scenes)
        table.add("one_segment_null", by_chance, unit="share", at=at, samples=scenes)
    spread = resampled["part"] - resampled["whole"]
    advantage = measured["part"] - measured["whole"]
    table.add("part_advantage", advantage, unit="", samples=len(tokens), variance=float(spread.var(ddof=1)))


def labels_of(frame: pl.DataFrame, rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the labels and the segments of the cells of scenes, (scenes, cells) each, by level.

    A label says which class or part, a segment which object (or which part of which object) of the scene.

    Args:
        frame: Rows of a data set of scenes with marks: `mask`, `part`, `objects`.
        rows: Cells along a side.
    """
    masks, parts = (np.stack([_pixels(file) for file in frame[column]]) for column in ("mask", "part"))
    shapes = [[each["shape"] for each in objects] for objects in frame["objects"]]
    kinds = {shape: kind for kind, shape in enumerate(sorted({shape for each in shapes for shape in each}), start=1)}
    classes = np.zeros((len(shapes), int(masks.max()) + 1), dtype=np.int64)
    for scene, each in enumerate(shapes):
        classes[scene, 1 : len(each) + 1] = [kinds[shape] for shape in each]
    whole = np.take_along_axis(classes, masks.reshape(len(masks), -1).astype(np.int64), 1).reshape(masks.shape)
    marked = parts == MARK
    pixels = {
        "whole": (whole, masks.astype(np.int64)),
        "part": (2 * whole + marked, 2 * masks.astype(np.int64) + marked),
    }
    # Twice the greatest number and one more is enough for every level.
    count = 2 * max(len(kinds), int(masks.max())) + 2
    labels = {level: majority_labels(label, rows, count) for level, (label, _) in pixels.items()}
    segments = {level: majority_labels(segment, rows, count) for level, (_, segment) in pixels.items()}
    return labels, segments


def _pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))
