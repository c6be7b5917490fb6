"""One state of the numerical libraries, so that a stage gives the same bytes first in a process and after another."""

from __future__ import annotations

import os
import platform
import random

import numpy as np
import torch

_MASK = (1 << 64) - 1


def reset(seed: int, threads: int = 1) -> None:
    """Put seeds, threads, precision and algorithm choice of Python, NumPy and torch into one known state.

    The number of threads is part of the result: partial sums are split among threads, so another count gives other
    last bits. Values are comparable only within one `machine_class`.

    Args:
        seed: Any integer.
        threads: Threads inside one torch operation.
    """
    # cuBLAS reads its workspace setting when the first CUDA context is made, and is not deterministic without one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(derive_seed(seed, 0))
    np.random.seed(derive_seed(seed, 1) % (1 << 32))
    torch.manual_seed(derive_seed(seed, 2))
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False


def derive_seed(*parts: int) -> int:
    """Mix integers such as (seed, step) into one seed; neighbouring inputs give unrelated outputs.

    Folds the parts through the splitmix64 finaliser. Order matters: (1, 2) and (2, 1) differ.

    Returns:
        Integer in [0, 2^63), accepted by torch, NumPy's `default_rng` and Python's `random`.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", section 4.
    """
    state = 0
    for part in parts:
        state = _splitmix64(state ^ (part & _MASK))
    return state >> 1


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def machine_class() -> dict[str, str | int]:
    """Describe what decides the last bits of a result: equal descriptions mean that equal bytes may be expected."""
    build = dict(entry.split("=", 1) for entry in torch.__config__.show().split(", ") if "=" in entry)
    return {
        "architecture": platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "blas": build.get("LAPACK_INFO", "unknown"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }
