"""Trained models on disk, and the shared base artefacts among them.

A model's directory holds `model.safetensors` and `config.json`, which says how to build the module that the weights
belong to:

    {"build": "components.nn.image_classifiers", "arguments": {"design": "plain", "channels": [[24], [48]], ...}}

`build` names a module of `components` with a function `build`; arguments that are themselves such objects are built
first. A base is such a directory under `bases/`, with a model card beside it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from components.errors import TesseraError, did_you_mean
from components.training import atomic
from components.training.weights import load_weights, save_weights

BASES = Path(__file__).resolve().parent.parent / "bases"
_PACKAGE = "components."


class UnknownBase(TesseraError):
    """No base of this name is in the workspace."""


class ModelDescriptionError(TesseraError):
    """A directory does not describe a model that can be built."""


def specification(module: str, **arguments: Any) -> dict[str, Any]:
    """Describe how a model is built: the `components` module whose `build` is called, and its arguments."""
    return {"build": module, "arguments": arguments}


def construct(description: Any) -> Any:
    """Build what a description made by `specification` describes; anything else is returned as it is.

    Raises:
        ModelDescriptionError: The module is not one of `components`, does not exist or has no `build`.
    """
    if not (isinstance(description, Mapping) and "build" in description):
        return description
    name = description["build"]
    # A config file may come from elsewhere: only our own modules are ever imported for it.
    if not name.startswith(_PACKAGE):
        raise ModelDescriptionError(f"build: {name!r} is no module of {_PACKAGE[:-1]}; refusing to import it.")
    try:
        build = importlib.import_module(name).build
    except (ModuleNotFoundError, AttributeError) as error:
        raise ModelDescriptionError(f"build: {name!r} is no module with a function `build` ({error}).") from error
    return build(**{key: construct(value) for key, value in description["arguments"].items()})


def save_model(directory: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a model's weights and description into a directory.

    Args:
        directory: Existing directory.
        model: Built by `construct(description)` and trained.
        description: From `specification`; JSON values only.
    """
    save_weights(model, directory / "model.safetensors")
    with atomic.replacing(directory / "config.json") as temporary:
        Path(temporary).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


def load_model(directory: Path) -> nn.Module:
    """Build the model that a directory describes, with its weights, in evaluation mode on the CPU.

    Raises:
        ModelDescriptionError: `config.json` is missing or describes no model of ours.
        WeightsMismatch: The weights do not belong to the description.
    """
    path = Path(directory) / "config.json"
    try:
        description = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ModelDescriptionError(f"{path}: {error}. Rerun the stage that writes this model.") from error
    model = construct(description)
    if not isinstance(model, nn.Module):
        raise ModelDescriptionError(f"{path} describes no model; expected an object with `build` and `arguments`.")
    load_weights(model, Path(directory) / "model.safetensors")
    return model.eval()


def save_base(directory: Path, model: nn.Module, description: Mapping[str, Any], card: str) -> None:
    """Write a base: the model and its card (Markdown: what it is, how it was made, what it may be used for)."""
    save_model(directory, model, description)
    with atomic.replacing(Path(directory) / "card.md") as temporary:
        Path(temporary).write_text(card.rstrip() + "\n")


def load_base(name: str, root: Path = BASES) -> nn.Module:
    """Load a shared base by name, such as `load_base("cifar-clf-a")`.

    Args:
        name: Folder under `root`.
        root: The workspace's `bases/`.

    Raises:
        UnknownBase: There is no such folder.
    """
    directory = root / name
    if not (directory / "config.json").is_file():
        known = sorted(path.parent.name for path in root.glob("*/config.json"))
        raise UnknownBase(
            f"{name!r} is not in {root.name}/; there {'are ' + ', '.join(known) if known else 'is none'}."
            f"{did_you_mean(name, known)} Make it with: tessera rebuild-base {name}"
        )
    return load_model(directory)
