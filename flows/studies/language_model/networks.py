"""Tokenizers and networks of answering papers, chosen by name, and their files.

tokenizer.json  model.safetensors        of a train stage, or of a base from which a training starts
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from components.training.weights import load_weights, save_weights

TOKENIZER_FILE, WEIGHTS_FILE = "tokenizer.json", "model.safetensors"


def network_module(params: Any) -> ModuleType:
    """Import the module of components.language that an arm names."""
    return importlib.import_module(f"components.language.{params.network}")


def make_tokenizer(params: Any, base: Path | None = None) -> Any:
    """Make the tokenizer that an arm names, or read that of the base it starts from."""
    module = importlib.import_module(f"components.tokenizers.text.{params.tokenizer}")
    return module.build() if base is None else module.load(base / TOKENIZER_FILE)


def make_network(params: Any, tokenizer: Any, base: Path | None = None) -> nn.Module:
    """Build the network that an arm names, on torch's default device, or read it from a base."""
    module = network_module(params)
    if base is not None:
        return module.load(base)
    network = module.build(
        tokenizer, context=params.context, width=params.width, layers=params.layers, heads=params.heads
    )
    if params.tokenizer == "regression_transformer":
        places = importlib.import_module("components.language.place_embedding")
        network.model.embedding = places.build(network.model.embedding, tokenizer.number_tokens)
    return network


def save(directory: Path, tokenizer: Any, network: nn.Module) -> None:
    """Write what `load` reads."""
    tokenizer.save(directory / TOKENIZER_FILE)
    save_weights(network, directory / WEIGHTS_FILE)


def load(params: Any, directory: Path, device: str) -> tuple[Any, nn.Module]:
    """Read the tokenizer and the network of a train stage, in evaluation mode."""
    tokenizer = importlib.import_module(f"components.tokenizers.text.{params.tokenizer}").load(
        directory / TOKENIZER_FILE
    )
    network = make_network(params, tokenizer)
    load_weights(network, directory / WEIGHTS_FILE)
    return tokenizer, network.eval().to(device)
