"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data.scenes import captions, questions
from components.data.scenes.questions import TYPES
from components.data.scenes.sampling import draw
from components.data.scenes.world import World
from components.data.shapes import table
from components.errors import TesseraError
from components.metrics.tables import write_parquet
from components.multimodal.patch_labels import label_sizes
from components.multimodal.words import WordVocabulary

WORLD = {
    "side": 48,
    "objects": [1, 6],
    "sizes": {"small": 3.75, "large": 5.75},
    "shapes": ["circle", "square", "triangle", "cross", "star", "ring"],
    "texture": 24,
    "sign": {"share": 50, "length": 3, "alphabet": 16},
    "held_out": "triples",
}
"""The world of shapes-48."""
_SCENES = {"train": 48, "validation": 8, "test": 12, "combinations": 8}
_QUESTIONS = tuple(kind for kind in TYPES if kind != "caption")
_ENCODERS = ("shapes-vit", "shapes-vit-s1", "shapes-vit-s2")
_LANGUAGES = ("shapes-lm",)
_WIDTH, _LAYERS, _HEADS = 8, 2, 2
_LANGUAGE = {
    "context": 256,
    "width": _WIDTH,
    "layers": _LAYERS,
    "heads": _HEADS,
    "tied": True,
    "positions": "rotary",
    "mlp_ratio": 2.0,
    "norm": "rms",
    "activation": "swiglu",
    "bias": False,
}


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name != "shapes-48":
        raise TesseraError(f"{name!r} is no data set of the multimodal study; expected shapes-48.")
    scenes(directory, WORLD, _SCENES)


def scenes(directory: Path, world: dict, counts: dict[str, int], seed: int = 0) -> None:
    """Write scenes of a world, so many of each split, with all types of questions but captions."""
    described = World.of(world)
    parts = [
        table(draw(described, seed, split, np.arange(count)), split, _QUESTIONS, 8) for split, count in counts.items()
    ]
    write_parquet(pl.concat(parts), directory / "shapes.parquet")
    meta = {
        "name": directory.name,
        "tables": {"shapes.parquet": {"bytes": (directory / "shapes.parquet").stat().st_size}},
        "splits": {"by": "column", "column": "split", "names": list(counts)},
    }
    (directory / "meta.json").write_text(json.dumps(meta))


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    words, sizes = _known()
    if name in _ENCODERS:
        description = _encoder(words, sizes)
    elif name in _LANGUAGES:
        description = _language(words)
        WordVocabulary(words).save(directory)
    elif name.startswith(("vlm-base", "vlm-lite")):
        seed = name.partition("-s")[2]
        description = specification(
            "components.multimodal.vlm",
            language=_language(words),
            words=words,
            rows=12,
            feature_width=_WIDTH,
            merge=2 if name.startswith("vlm-lite") else 1,
            encoder=f"shapes-vit-s{seed}" if seed else "shapes-vit",
        )
    else:
        raise TesseraError(
            f"{name!r} is no base of the multimodal study; expected {', '.join((*_ENCODERS, *_LANGUAGES))}, or one "
            "whose name begins with vlm-base or vlm-lite."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_base(directory, construct(description), description, f"# {name}\n\nAn untrained stand-in.")


def _known() -> tuple[list[str], list[int]]:
    world = World.of(WORLD)
    words = {*questions.vocabulary(world, _QUESTIONS), *captions.vocabulary(world)}
    return sorted(words), list(label_sizes(world))


def _encoder(words: list[str], sizes: list[int]) -> dict:
    return specification(
        "components.multimodal.contrastive",
        words=words,
        image_side=WORLD["side"],
        patch_size=4,
        width=_WIDTH,
        layers=_LAYERS,
        heads=_HEADS,
        mlp_ratio=2.0,
        text_layers=1,
        context=64,
        label_sizes=sizes,
        temperature=0.07,
    )


def _language(words: list[str]) -> dict:
    return specification("components.language.causal_lm", vocabulary_size=len(words) + 3, **_LANGUAGE)
