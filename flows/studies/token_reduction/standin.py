"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

from pathlib import Path

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
    scenes.make_base(name, directory)
