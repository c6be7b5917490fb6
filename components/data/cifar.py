"""CIFAR-10 from its publishers' files.

Two editions hold the same 60,000 photographs of 32 x 32 pixels: `jpeg`, the JPEG files of a GitHub repository (lossy),
and `original`, the pixels that were published. Their rows are in different orders.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from components.data import parquet, png

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
_RECORD = 1 + 3 * SIDE * SIDE
_SCHEMA = {"image": pl.Binary, "label": pl.Int8, "class": pl.String, "file": pl.String}
_BATCHES = {
    "train": [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}


def from_jpeg_archive(paths: Mapping[str, Path], directory: Path) -> None:
    """Convert a repository archive with files `<root>/<split>/<class>/<number>.jpg` (edition `jpeg`).

    The rows of each split are sorted by class and file name and then shuffled with Python's generator at seed 0,
    which is the order of the ready-made Parquet files.
    """
    (archive,) = paths.values()
    rows: dict[str, list[tuple[str, str, bytes]]] = {"test": [], "train": []}
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            found = re.fullmatch(r"[^/]+/(train|test)/([a-z]+)/(\w+\.jpg)", member.name)
            if found and member.isfile():
                split, name, file = found.groups()
                rows[split].append((name, file, members.extractfile(member).read()))
    for split, images in rows.items():
        images.sort(key=lambda row: row[:2])
        random.Random(0).shuffle(images)
        names, files, encoded = zip(*images, strict=True)
        _write(directory, split, encoded, [CLASSES.index(name) for name in names], files)


def from_binary_archive(paths: Mapping[str, Path], directory: Path) -> None:
    """Convert the publisher's `cifar-10-binary.tar.gz` (edition `original`).

    A record is a label byte and the pixels, channel by channel.

    Raises:
        ValueError: A batch is not a whole number of records.
        KeyError: A batch is missing.
    """
    (archive,) = paths.values()
    with tarfile.open(archive, "r:*") as members:
        content = {member.name: members.extractfile(member).read() for member in members if member.isfile()}
    for split, batches in _BATCHES.items():
        joined = b"".join(content[batch] for batch in batches)
        if not joined or len(joined) % _RECORD:
            raise ValueError(f"the {split} batches hold {len(joined)} bytes, expected a multiple of {_RECORD}")
        records = np.frombuffer(joined, np.uint8).reshape(-1, _RECORD)
        _write_pixels(directory, split, records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), records[:, 0])


def from_hub(paths: Mapping[str, Path], directory: Path) -> None:
    """Convert the Parquet files of `uoft-cs/cifar10` (edition `original`): columns `img` (PNG bytes) and `label`.

    Raises:
        ValueError: An image is not 32 x 32 RGB.
    """
    for file, path in paths.items():
        frame = parquet.read(path)
        pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in frame["img"]]
        _write_pixels(directory, Path(file).name.split("-")[0], np.stack(pixels), frame["label"].to_numpy())


def _write_pixels(directory: Path, split: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write uint8 pixels (B, H, W, 3), ordered by their hash: the publisher's files are in no common order."""
    if pixels.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images are {pixels.shape[1:]}, expected {(SIDE, SIDE, 3)}")
    pixels = np.ascontiguousarray(pixels)
    keys = [hashlib.sha256(image).hexdigest()[:16] for image in pixels]
    order = sorted(range(len(keys)), key=lambda row: (keys[row], labels[row]))
    files = [f"{keys[row]}.png" for row in order]
    _write(directory, split, png.encode(pixels[order]), labels[order].tolist(), files)


def _write(directory: Path, split: str, images, labels: list[int], files) -> None:
    classes = [CLASSES[label] for label in labels]
    columns = {"image": list(images), "label": labels, "class": classes, "file": list(files)}
    parquet.write(pl.DataFrame(columns, schema=_SCHEMA), directory / f"{split}.parquet")
