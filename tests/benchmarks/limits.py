"""What this machine can do at most, measured in the same run: multiply matrices, and move memory."""

from __future__ import annotations

import functools

import torch
from turns import seconds

_SIDE, _BYTES, _ROUNDS = 1024, 64 << 20, 7


def products_per_second(device: str = "cpu") -> float:
    """Return operations a second of a product of two square matrices in single precision, a multiply-add being two."""
    return _products_per_second(device, torch.get_num_threads())


def bytes_per_second(device: str = "cpu") -> float:
    """Return bytes a second, read and written together, of a copy too large for the caches."""
    return _bytes_per_second(device, torch.get_num_threads())


@functools.cache
def _products_per_second(device: str, threads: int) -> float:
    left, right = torch.randn(2, _SIDE, _SIDE, device=device)
    into = torch.empty(_SIDE, _SIDE, device=device)
    return 2 * _SIDE**3 / _best(lambda: torch.mm(left, right, out=into), device)


@functools.cache
def _bytes_per_second(device: str, threads: int) -> float:
    source = torch.ones(_BYTES, dtype=torch.uint8, device=device)
    into = torch.zeros_like(source)
    return 2 * _BYTES / _best(lambda: into.copy_(source), device)


def _best(work, device: str) -> float:
    """Return the fastest of a few runs: a limit is what can be reached, not what is usual."""
    return min(seconds(work, device) for _ in range(_ROUNDS))
