"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data import multi30k, shapes
from components.data.images import encode_png
from components.errors import TesseraError
from components.metrics.tables import write_parquet
from flows.studies.analysis import scan_standin, sentence_standin

_CODES = 24
_WORDS = [
    "a",
    "man",
    "in",
    "the",
    "red",
    "coat",
    "plays",
    "his",
    "old",
    "horn",
    ",",
    "while",
    "two",
    "dogs",
    "run",
    "on",
    "green",
    "grass",
    "near",
    "some",
    "water",
    ".",
]
_ROWS = {"train": 30, "test": 24}
_WORLD = {
    "side": 64,
    "objects": [1, 4],
    "sizes": {"medium": 8.0, "large": 11.0},
    "shapes": ["circle", "square", "triangle", "diamond"],
    "marks": True,
}
# Channels of the base's levels and side of its images.
_BASES = {
    **{f"cifar-vq-f4{seed}": ((4, 4), 32) for seed in ("", "-s1", "-s2")},
    **{f"cifar-vq-f8{seed}": ((4, 4, 4), 32) for seed in ("", "-s1", "-s2")},
    **{f"shapes-vq-f8{seed}": ((4, 4, 4), 64) for seed in ("", "-s1", "-s2")},
    "photos-vq-f4": ((4, 4), 32),
}


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name in sentence_standin.DATA:
        sentence_standin.make(name, directory)
        return
    generator = np.random.default_rng(0)
    if name == "cifar10":
        for split, rows in _ROWS.items():
            labels = np.arange(rows, dtype=np.int8) % 4
            frame = pl.DataFrame({"image": _pictures(rows, 32, generator), "label": labels})
            write_parquet(frame, directory / f"{split}.parquet")
        rule = {"by": "file", "files": {split: f"{split}.parquet" for split in _ROWS}}
    elif name == "noto-emoji":
        pictures = _pictures(12, 32, generator)
        write_parquet(
            pl.DataFrame({"name": [f"emoji {row}" for row in range(12)], "png32": pictures}),
            directory / "noto_emoji.parquet",
        )
        rule = {"by": "hash", "column": "name", "until": ":", "shares": {"train": 0.8, "test": 0.2}}
    elif name == "photos":
        groups = ["meadow", "market", "orchard"]
        frame = pl.DataFrame({"name": groups, "group": groups, "image": _pictures(3, 64, generator)})
        write_parquet(frame, directory / "photos.parquet")
        rule = {"by": "hash", "column": "group", "until": None, "shares": {"train": 0.5, "test": 0.5}}
    elif name == "shapes-64":
        shapes.generate(directory, world=_WORLD, seed=0, scenes={"train": 8, "test": 12})
        rule = {"by": "column", "column": "split", "names": ["train", "test"]}
    elif name == "wikitext2":
        parts = [_sentences(40, generator) for _ in range(2)]
        texts = ["\n".join([" = Heading = ", *part]) + "\n" for part in parts]
        write_parquet(pl.DataFrame({"split": ["test", "validation"], "text": texts}), directory / "text.parquet")
        rule = {"by": "column", "column": "split", "names": ["validation", "test"]}
    elif name == "multi30k":
        columns = {language: _sentences(100, generator) for language in multi30k.LANGUAGES}
        splits = ["train"] * 70 + [split for split in multi30k.SPLITS[1:] for _ in range(6)]
        frame = pl.DataFrame({"split": splits, "index": pl.Series(range(100), dtype=pl.Int32), **columns})
        write_parquet(frame, directory / multi30k.FILE)
        rule = {"by": "column", "column": "split", "names": list(multi30k.SPLITS)}
    else:
        known = ", ".join(
            ("cifar10", "noto-emoji", "photos", "shapes-64", "wikitext2", "multi30k", *sentence_standin.DATA)
        )
        raise TesseraError(f"{name!r} is no data set of the analysis study; expected one of {known}.")
    sizes = {path.name: {"bytes": path.stat().st_size} for path in directory.glob("*.parquet")}
    (directory / "meta.json").write_text(json.dumps({"name": name, "tables": sizes, "splits": rule}))


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny image tokenizer into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    if name in scan_standin.BASES:
        scan_standin.make(directory)
        return
    if name not in _BASES:
        raise TesseraError(f"{name!r} is no base of the analysis study; expected one of {', '.join(_BASES)}.")
    channels, side = _BASES[name]
    quantizer = specification("components.quantizers.euclidean_vq", codebook_size=_CODES, code_dim=4)
    description = specification(
        "components.tokenizers.image.grid", quantizer=quantizer, image_side=side, channels=list(channels)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = construct(description)
        # Untrained encoders send all cells to a few codes; started from their own vectors, many are in use.
        generator = torch.Generator().manual_seed(0)
        model.start_from(torch.rand(4, 3, side, side, generator=generator), generator)
        save_base(directory, model, description, f"# {name}\n\nAn untrained stand-in.")


def _pictures(count: int, side: int, generator: np.random.Generator) -> list[bytes]:
    """Return random pictures as PNG files: smooth colours with noise, so that neighbouring cells are alike."""
    coarse = torch.from_numpy(generator.random((count, 3, 4, 4), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    noisy = smooth + 0.1 * torch.from_numpy(generator.standard_normal(smooth.shape, dtype=np.float32))
    return [encode_png(image) for image in noisy.clamp(0, 1).mul(255).round().to(torch.uint8)]


def _sentences(count: int, generator: np.random.Generator) -> list[str]:
    return [" ".join(generator.choice(_WORDS, size=12)) for _ in range(count)]
