"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

from pathlib import Path

import torch

from components.bases import construct, save_base, specification
from components.errors import TesseraError
from flows.studies.image_tokenizer import standin as pictures

_CLASSES = 4
_BASES = {
    "cifar-vae-f8": specification(
        "components.nn.kl_autoencoder", image_side=32, channels=[8, 8, 8], latent_dim=16, blocks=1
    ),
    "cifar-vq-f8": specification(
        "components.tokenizers.image.grid",
        image_side=32,
        channels=[8, 8, 8],
        quantizer=specification("components.quantizers.vq", codebook_size=8, code_dim=4),
    ),
    "cifar-clf-b": specification(
        "components.nn.image_classifiers", design="plain", channels=[[4], [8]], classes=_CLASSES
    ),
}


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name != "cifar10":
        raise TesseraError(f"{name!r} is no data set of the image generation study; expected cifar10.")
    pictures.make(name, directory)


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    if name not in _BASES:
        raise TesseraError(f"{name!r} is no base of the image generation study; expected one of {', '.join(_BASES)}.")
    description = _BASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = construct(description)
        if name == "cifar-vae-f8":
            model.measure([torch.rand(8, 3, 32, 32)])
        save_base(directory, model, description, f"# {name}\n\nAn untrained stand-in.")
