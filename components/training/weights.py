"""Model weights as safetensors: equal weights give equal bytes, and a misfit is named tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.training import atomic


class WeightsMismatch(TesseraError):
    """A weights file does not fit the model, or is no weights file."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write parameters and persistent buffers atomically; a tensor tied under two names is written once."""
    write_tensors(_tensors(model), path)


def load_weights(model: nn.Module, path: Path, strict: bool = True) -> None:
    """Copy the tensors of a file into a model; either all are copied or none.

    Args:
        model: Model on any device, built with the settings of the one that was saved.
        path: File written by `save_weights`.
        strict: Refuse names that only the file or only the model has. Otherwise those are left alone.

    Raises:
        WeightsMismatch: Names, shapes or dtypes differ, or the file is missing or damaged.
    """
    copy_tensors(read_tensors(path), _tensors(model), str(path), strict=strict)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: str | None = None) -> None:
    """Write named tensors, and one text beside them, atomically and durably."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The header keeps metadata in a hash map of random order: more than one key would make the bytes random.
    with atomic.replacing(Path(path)) as temporary:
        safetensors.torch.save_file(content, temporary, None if metadata is None else {"json": metadata})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file to the CPU.

    Raises:
        WeightsMismatch: The file is missing or is no complete safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsMismatch(
            f"{path}: cannot be read as safetensors ({error}). Expected a file written by save_weights; "
            "rerun the stage that writes it."
        ) from error


def copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor], where: str, *, strict: bool) -> None:
    """Copy tensors by name after checking all of them.

    Raises:
        WeightsMismatch: Names (when strict), shapes or dtypes differ; nothing was copied.
    """
    shared = [name for name in target if name in source]
    faults = [
        f"{name} is {_describe(source[name])} in the file, {_describe(target[name])} in the model"
        for name in shared
        if _describe(source[name]) != _describe(target[name])
    ]
    if strict:
        faults += [f"{name} is missing from the file" for name in target if name not in source]
        faults += [f"{name} is not part of the model" for name in source if name not in target]
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise WeightsMismatch(f"{where}: {shown}. Build the model with the settings it was saved with.")
    with torch.no_grad():
        for name in shared:
            target[name].copy_(source[name])


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    # keep_vars gives the tensors themselves, so that a tied one is recognised by identity.
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors
