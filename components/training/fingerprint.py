"""Hashes of exact numbers: two runs share a fingerprint only when every bit of every value is the same."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from components.training import determinism


def digest(values: Iterable[Tensor | float | int | str | bytes]) -> str:
    """Hash values in order, each with its type and, for tensors, dtype and shape.

    Returns:
        32 hexadecimal digits. NaNs of equal bits are equal; 0.0 and -0.0 differ.
    """
    total = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, Tensor):
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            kind = f"{value.dtype} {tuple(value.shape)}"
        elif isinstance(value, (bytes, str)):
            content = value.encode() if isinstance(value, str) else value
            kind = type(value).__name__
        elif isinstance(value, float):
            content, kind = struct.pack("<d", value), "float"
        else:
            content, kind = str(value).encode(), "int"
        # Lengths delimit the parts, so that no two sequences of values feed the hash the same bytes.
        total.update(f"{kind} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Hash named tensors, independent of their order."""
    return digest(part for name in sorted(state) for part in (name, state[name]))


def numeric_fingerprint(
    run: Callable[[], Iterable[Tensor | float | int | str | bytes]], *, seed: int = 0, threads: int = 1
) -> str:
    """Hash everything that a short run yields (losses, weights, an evaluation), from a reset state.

    Args:
        run: Called once; yields the values in a fixed order.
        seed: Seed of the reset before the run.
        threads: Threads inside one torch operation, as in the stage whose numbers are compared.

    Returns:
        32 hexadecimal digits; equal on one machine class when the code computes the same numbers.
    """
    determinism.reset(seed, threads)
    return digest(run())
