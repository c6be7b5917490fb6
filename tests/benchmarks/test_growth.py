"""How cost grows: time and memory against the size of a codebook and the length of a sequence, as fitted powers.

A cost that grows as size to the power a is a straight line of slope a in logarithms. The slope is fitted by least
squares over a factor of 16 or more; stages, papers and workers are in `test_orchestration`. One thread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pytest
import torch
import turns

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.quantizers.nearest import nearest_codes

pytestmark = pytest.mark.benchmark_bar

VECTORS, WIDTH = 8192, 32
CODES, TOKENS = (1024, 4096, 16_384, 65_536), (64, 128, 256, 512, 1024)


def grown(benchmark, sizes: Sequence[int], works: dict[int, Callable[[], object]], rounds: int) -> dict[str, dict]:
    """Time the work of every size in turns and measure the memory of each; return both with their powers."""
    times = turns.in_turns(benchmark, works, rounds)
    seconds = [statistics.median(times[size]) for size in sizes]
    peaks = [turns.peak_bytes(works[size]) for size in sizes]
    found = {
        "seconds": {"exponent": turns.exponent(sizes, seconds), "values": seconds},
        "bytes": {"exponent": turns.exponent(sizes, peaks), "values": peaks},
    }
    benchmark.extra_info.update(found, sizes=list(sizes))
    print(benchmark.extra_info)
    return found


@torch.no_grad()
def test_search_grows_in_proportion_to_the_codebook(one_thread, benchmark):
    vectors = torch.randn(VECTORS, WIDTH)
    books = {size: torch.randn(size, WIDTH) for size in CODES}
    works = {size: lambda codes=codes: nearest_codes(vectors, codes) for size, codes in books.items()}
    found = grown(benchmark, CODES, works, rounds=5)
    assert found["seconds"]["exponent"] <= 1.1
    assert found["bytes"]["exponent"] <= 1.0


def test_a_training_step_grows_less_than_with_the_square_of_the_sequence(one_thread, benchmark):
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(512, max(TOKENS), 64, 2, 4, tied=True, positions="rotary"))
    batches = {size: torch.randint(512, (2, size)) for size in TOKENS}

    def step(batch: torch.Tensor) -> None:
        model.zero_grad(set_to_none=True)
        model.loss(batch).backward()

    works = {size: lambda batch=batch: step(batch) for size, batch in batches.items()}
    found = grown(benchmark, TOKENS, works, rounds=7)
    assert found["seconds"]["exponent"] <= 2.0
    assert found["bytes"]["exponent"] <= 1.3
