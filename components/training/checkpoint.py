"""The state of a training as one file: tensors in safetensors, the rest as JSON in its header.

One file, because then one rename makes the whole state appear. A file that is damaged or belongs to another training
is discarded with a warning: a checkpoint saves time, so losing one must never stop a run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import safetensors
import torch
from torch import Tensor, nn

from components.metrics.tables import CURVE_SCHEMA, CurveTable
from components.training import atomic, weights
from components.training.fingerprint import digest, state_digest

_logger = logging.getLogger(__name__)
_FILE = "training.safetensors"


def save(
    directory: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    *,
    step: int,
    curves: CurveTable,
    identity: Mapping[str, Any],
) -> None:
    """Write the state after `step` steps; whoever is killed during this finds the previous state."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = _model_state(model) | _average_state(average)
    for name, parameter in model.named_parameters():
        for key, tensor in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = tensor
    record = json.dumps({"identity": identity, "step": step, "curves": curves.frame().to_dict(as_series=False)})
    seal = digest([record, state_digest(tensors)])
    weights.write_tensors(tensors, directory / _FILE, json.dumps({"record": record, "digest": seal}))


def resume(
    directory: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    *,
    identity: Mapping[str, Any],
) -> tuple[int, CurveTable]:
    """Restore a saved state in place.

    Args:
        directory: Directory of one training, written by nobody else.
        model: Freshly built model; receives parameters and buffers.
        optimiser: Its fresh optimiser; receives its state.
        average: Averaged parameters by name; overwritten in place.
        identity: What makes two trainings the same (seed, optimisation); a state of another one is discarded.

    Returns:
        Steps done and curves so far; (0, empty) and everything untouched when there is no usable state.
    """
    path = directory / _FILE
    if not path.exists():
        return 0, CurveTable()
    atomic.remove_partial(directory)
    try:
        step, curves, tensors = _read(path, identity)
        state = {name: tensors.pop(name) for name in list(tensors) if name.startswith("optimiser/")}
        moments = _optimiser_state(state, model)
        weights.copy_tensors(tensors, _model_state(model) | _average_state(average), str(path), strict=True)
    except (weights.WeightsMismatch, ValueError, KeyError, TypeError, safetensors.SafetensorError, OSError) as error:
        _logger.warning("checkpoint %s is discarded, training starts over: %s", path, error)
        path.unlink()
        return 0, CurveTable()
    optimiser.state.update(moments)
    return step, curves


def _read(path: Path, identity: Mapping[str, Any]) -> tuple[int, CurveTable, dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["json"])
    tensors = weights.read_tensors(path)
    if header["digest"] != digest([header["record"], state_digest(tensors)]):
        raise ValueError("its content differs from what was written")
    record = json.loads(header["record"])
    # Through JSON, because it knows lists only and the optimisation holds a tuple.
    if record["identity"] != (wanted := json.loads(json.dumps(identity))):
        raise ValueError(f"it belongs to a training with {record['identity']}, this one has {wanted}")
    return record["step"], CurveTable.from_frame(pl.DataFrame(record["curves"], schema=CURVE_SCHEMA)), tensors


def _optimiser_state(state: Mapping[str, Tensor], model: nn.Module) -> dict[Tensor, dict[str, Tensor]]:
    parameters = dict(model.named_parameters())
    moments: dict[Tensor, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        _, moment, name = key.split("/", 2)
        parameter = parameters[name]
        if moment != "step" and tensor.shape != parameter.shape:
            raise ValueError(f"{key} has shape {list(tensor.shape)}, the parameter {list(parameter.shape)}")
        # Fused AdamW walks raw memory: moments lie as their parameter does (channels last); the step count is a number.
        restored = tensor.to(parameter.device, copy=True)
        if moment != "step":
            restored = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        moments.setdefault(parameter, {})[moment] = restored
    return moments


def _model_state(model: nn.Module) -> dict[str, Tensor]:
    # Non-persistent buffers are included: a resumed training needs every tensor that a step may have changed.
    parameters = {f"parameter/{name}": tensor for name, tensor in model.named_parameters()}
    return parameters | {f"buffer/{name}": tensor for name, tensor in model.named_buffers()}


def _average_state(average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"average/{name}": tensor for name, tensor in average.items()}
