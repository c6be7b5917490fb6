"""Work of ours and of peers timed in turns, and what is kept of it: medians, ratios of pairs, and their intervals.

A slow moment of the machine hits both sides of a round, so the ratio is taken within rounds and its median over them.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

COVERAGE = 0.95


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Return how long some work takes, the device's queue included."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turns(
    benchmark, works: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Run every work once to warm up, then all of them in each round, every other round in the opposite order."""
    times: dict[str, list[float]] = {name: [] for name in works}

    def one_round() -> None:
        names = list(works)
        for name in names if len(times[names[0]]) % 2 == 0 else reversed(names):
            times[name].append(seconds(works[name], device))

    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=1)
    return {name: values[1:] for name, values in times.items()}


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much more the tensors of some work took at once, on the CPU, than was taken before it.

    Allocations are counted, not resident memory: what a process has freed and kept would hide use.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate((event.nbytes() for event in sorted(events, key=_start)), initial=0))


def _start(event) -> int:
    return event.start_ns()


def facts(ours: Sequence[float], peer: Sequence[float] | None = None, *, amount: float | None = None) -> dict[str, Any]:
    """Return medians and intervals of seconds, or of `amount` per second; `ratio` says how many times the peer's speed.

    Args:
        ours: Seconds of our rounds.
        peer: Seconds of the peer in the same rounds.
        amount: How much one run works off; rates are given where it is, else seconds.
    """
    found: dict[str, Any] = _kept(ours, "ours", amount)
    if peer is not None:
        ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
        found |= _kept(peer, "peer", amount)
        found |= {"ratio": _short(statistics.median(ratios)), "interval": [_short(end) for end in interval(ratios)]}
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval of the median that assumes no distribution: two order statistics that hold it in 95 of 100.

    Fewer than six values cannot give that; their range is returned, which holds it in 94 of 100 at five, 75 at three.
    """
    ordered, count = sorted(values), len(values)
    outside = 0
    # P(the k-th smallest exceeds the median) is that of fewer than k of n fair coins.
    while outside + 1 <= (count - 1) // 2:
        missed = 2 * sum(math.comb(count, heads) for heads in range(outside + 2)) / 2**count
        if missed > 1 - COVERAGE:
            break
        outside += 1
    return ordered[outside], ordered[count - 1 - outside]


def _kept(values: Sequence[float], name: str, amount: float | None) -> dict[str, Any]:
    given = list(values) if amount is None else [amount / value for value in values]
    return {name: _short(statistics.median(given)), f"{name}_interval": [_short(end) for end in interval(given)]}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of log values over log sizes by least squares: cost grows as size to this power."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    return _short(sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs))
