"""What is decided in full precision although the network around it computes in half."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)


def exact(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor in float32 and any other as it is."""
    return tensor.float() if tensor.dtype in _HALF else tensor


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context in which operations on `device` keep the precision of their inputs."""
    known = device.type in ("cpu", "cuda")
    return torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext()
