"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

from pathlib import Path

import torch

from components.bases import construct, save_base, specification
from flows.studies.image_tokenizer import standin as images
from flows.studies.multimodal import standin as scenes


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name == "cifar10":
        images.make(name, directory)
    else:
        scenes.make(name, directory)


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    if not name.startswith("cifar-vit"):
        scenes.make_base(name, directory)
        return
    description = specification(
        "components.nn.conv_stem_vit",
        image_side=32,
        channels=[4, 6, 8],
        width=8,
        layers=2,
        heads=2,
        classes=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_base(directory, construct(description), description, f"# {name}\n\nAn untrained stand-in.")
