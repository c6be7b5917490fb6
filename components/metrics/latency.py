"""How long work takes and how much memory it needs beside what is there already.

Times depend on the machine and on what else it does: they are reported, not compared between runs.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from components.errors import TesseraError

_DISCARDED = 4  # one in so many runs, at the beginning, is warm-up
_PEAK, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Latency(NamedTuple):
    """What was measured.

    Attributes:
        median: Seconds.
        lower, upper: Quartiles, seconds.
        runs: Runs behind them, warm-up left out.
        peak_bytes: Most memory taken beyond what was taken before: allocated memory on CUDA, resident memory on Linux;
            None where neither can be read.
    """

    median: float
    lower: float
    upper: float
    runs: int
    peak_bytes: int | None


@torch.no_grad()
def latency(work: Callable[[], object], runs: int = 40, device: str | torch.device = "cpu") -> Latency:
    """Run some work many times; the first quarter of the runs is thrown away.

    Raises:
        TesseraError: There are fewer than two runs.
    """
    if runs < 2:
        raise TesseraError(f"runs is {runs}; expected at least 2, the first of which is warm-up.")
    device = torch.device(device)
    seconds = []
    for _ in range(runs):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    kept = seconds[math.ceil(runs / _DISCARDED) :]
    lower, median, upper = statistics.quantiles(kept, n=4) if len(kept) > 1 else kept * 3
    return Latency(median, lower, upper, len(kept), _peak(work, device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(work: Callable[[], object], device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # Sets the peak of resident memory back to what is resident now.
        _PEAK.write_text("5")
        before = _resident("VmRSS")
        work()
        return max(0, _resident("VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _resident(key: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in _STATUS.read_text().splitlines() if line.startswith(key))
