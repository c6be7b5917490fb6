"""Evaluate the tokenizer of one arm on images that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from components.bases import load_model
from components.data.images import encode_png
from components.data.pixels import to_bytes
from components.metrics.codebook import perplexity, usage
from components.metrics.frechet import leave_group_out
from components.metrics.image import psnr, ssim
from components.metrics.stats import jackknife_variance
from components.metrics.tables import MetricTable, write_parquet
from components.nn.image_classifiers import frozen
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.sources import TestImages, test_images

BATCH = 64
"""Images that are coded together: small batches keep activations in a core's cache."""
_FRECHET_BLOCKS = 10
_SAMPLE_SCHEMA = {"kind": pl.String, "item": pl.String, "at": pl.Int64, "image": pl.Binary}


def evaluate(stage: StageContext) -> None:
    """Write distortion, feature distance and accuracy at every length, and the use of the codebook."""
    model = load_model(stage.inputs["train"]).to(stage.device)
    table, samples = MetricTable(), Samples()
    reconstruction_metrics(stage, model, table, samples)
    table.write(stage.output)
    samples.write(stage.output)


class Samples:
    """Images kept for the judge's figures: `samples.parquet` with columns kind, item, at and image (a PNG file)."""

    def __init__(self) -> None:
        self._rows: list[dict] = []

    def add(self, kind: str, items: Sequence[object], at: int, images: Tensor) -> None:
        """Keep uint8 images (B, 3, H, W) under a kind, one name each, and a number (0: the original)."""
        for item, image in zip(items, images.cpu(), strict=True):
            self._rows.append({"kind": kind, "item": str(item), "at": at, "image": encode_png(image)})

    def write(self, directory: Path) -> None:
        """Write `samples.parquet` into `directory`."""
        write_parquet(pl.DataFrame(self._rows, schema=_SAMPLE_SCHEMA), directory / "samples.parquet")


class FeatureNetwork:
    """The base in whose features image sets are compared, on the stage's device."""

    def __init__(self, stage: StageContext) -> None:
        directory = stage.inputs[f"bases/{stage.params.feature_base}"]
        self._network = frozen(load_model(directory)).to(stage.device)
        self._device = stage.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return features (B, F), float64, and predicted classes (B,) of uint8 images (B, 3, H, W)."""
        features = torch.cat([self._network.features(part.to(self._device)) for part in images.split(BATCH)])
        classes = self._network.classifier(features).argmax(1)
        return features.double().cpu().numpy(), classes.cpu()


def reconstruction_metrics(
    stage: StageContext, model: nn.Module, table: MetricTable, samples: Samples
) -> tuple[TestImages, Tensor]:
    """Measure reconstructions at every length and the use of the codebook.

    Returns:
        The test images and their codes (B, N), on the CPU.
    """
    params = stage.params
    test = test_images(stage, max(params.test_images, params.feature_images))
    indices = encode(model, test.images, stage.device)
    count, shown = min(params.test_images, len(test.images)), min(params.sample_images, len(test.images))
    table.add("codebook_usage", usage(indices[:count], model.codebook_size), unit="share", samples=count)
    table.add("codebook_perplexity", perplexity(indices[:count], model.codebook_size), unit="codes", samples=count)
    samples.add("image", range(shown), 0, test.images[:shown])
    compare = FeatureComparison(stage, test, table) if test.labels is not None else None
    lengths = [length for length in params.lengths if length <= indices.shape[1]]
    for done, length in enumerate(lengths):
        decoded = decode(model, indices[:, :length], stage.device)
        for name, metric, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "")):
            values = in_batches(metric, decoded[:count], test.images[:count])
            items, means = by_item(test.items[:count], values)
            table.add_items(name, means, unit=unit, at={"k": length}, items=items)
        if compare is not None:
            compare(decoded, {"k": length})
        samples.add("image", range(shown), length, decoded[:shown])
        stage.progress(done + 1, len(lengths))
    return test, indices


class FeatureComparison:
    """Frechet distance and accuracy of reconstructions, against the same originals at every length and in every arm.

    Args:
        stage: The evaluate stage.
        test: Test images with their classes.
        table: Where the metrics go.
    """

    def __init__(self, stage: StageContext, test: TestImages, table: MetricTable) -> None:
        self._network, self._table = FeatureNetwork(stage), table
        self._count = min(stage.params.feature_images, len(test.images))
        self._labels = test.labels[: self._count]
        self._references, classes = self._network(test.images[: self._count])
        self._blocks = np.arange(self._count) * _FRECHET_BLOCKS // self._count
        self._share("accuracy_of_originals", classes, None)

    def __call__(self, decoded: Tensor, at: dict[str, int] | None) -> None:
        """Add `fd_cifar` and `accuracy` of reconstructions (B, 3, H, W), uint8, at a condition."""
        features, classes = self._network(decoded[: self._count])
        value, without = leave_group_out(features, self._references, self._blocks)
        self._table.add(
            "fd_cifar",
            value,
            unit="",
            at=at,
            samples=self._count,
            variance=jackknife_variance(value, without),
            normaliser="cifar-clf-b features",
        )
        self._share("accuracy", classes, at)

    def _share(self, name: str, classes: Tensor, at: dict[str, int] | None) -> None:
        share = float((classes == self._labels).double().mean())
        variance = share * (1 - share) / self._count
        self._table.add(name, share, unit="share", at=at, samples=self._count, variance=variance)


@torch.no_grad()
def encode(model: nn.Module, images: Tensor, device: str) -> Tensor:
    """Return codes (B, N), on the CPU, of uint8 images (B, 3, H, W)."""
    return torch.cat([model.encode(part.to(device)).cpu() for part in images.split(BATCH)])


@torch.no_grad()
def decode(model: nn.Module, indices: Tensor, device: str) -> Tensor:
    """Return images (B, 3, H, W), uint8 on the CPU as a decoder would write them, of codes (B, k)."""
    return torch.cat([to_bytes(model.decode(part.to(device))).cpu() for part in indices.split(BATCH)])


def by_item(names: Sequence[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Average values (B,) that share a name; return each name once, in order of appearance, and its mean."""
    unique = list(dict.fromkeys(names))
    position = {name: index for index, name in enumerate(unique)}
    index = np.array([position[name] for name in names])
    return unique, np.bincount(index, weights=values) / np.bincount(index)


def in_batches(metric: Callable[[Tensor, Tensor], Tensor], images: Tensor, references: Tensor) -> np.ndarray:
    """Return a metric of every pair of images (B, 3, H, W), float64 (B,), a batch at a time."""
    pairs = zip(images.split(BATCH), references.split(BATCH), strict=True)
    return torch.cat([metric(one, other) for one, other in pairs]).double().numpy()
