"""Drawing image tokens with the keys and values of earlier dimensions kept, and without.

The head of the small profile: 16 dimensions of 16 levels, width 48, two layers, 512 tokens with guidance, one thread.
"""

import statistics
import time

import pytest
import torch

from components.nn.dimension_ar_head import DimensionARHead, draw
from components.nn.guidance import guided, paired

pytestmark = pytest.mark.benchmark_bar

TOKENS, DIMENSIONS, LEVELS, ROUNDS = 512, 16, 16, 5
BAR = 3.0  # a cache computes 16 places of 16 x 17 / 2


@torch.no_grad()
def without_cache(head: DimensionARHead, condition, unguided, generator) -> torch.Tensor:
    both = paired(condition, unguided)
    levels = torch.zeros(len(condition), DIMENSIONS, dtype=torch.long)
    for place, dimension in enumerate(head.order):
        logits = guided(head(torch.cat([levels, levels]), both)[place], 1.5, pairs=True)
        levels[:, dimension] = draw(logits, 1.0, generator)
    return levels


def test_a_cache_makes_drawing_the_dimensions_several_times_faster():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        head = DimensionARHead(96, DIMENSIONS, LEVELS, width=48, layers=2, heads=4).eval()
        condition, unguided = torch.randn(2, TOKENS, 96)
        times: dict[str, list[float]] = {"cached": [], "whole": []}
        for _ in range(ROUNDS):
            for name in times:
                generator = torch.Generator().manual_seed(0)
                start = time.perf_counter()
                if name == "cached":
                    head.sample(condition, generator, unguided=unguided, guidance=1.5)
                else:
                    without_cache(head, condition, unguided, generator)
                times[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    cached, whole = (statistics.median(times[name]) for name in ("cached", "whole"))
    print(f"\n{TOKENS} tokens of {DIMENSIONS} dimensions: {1e3 * cached:.0f} ms, without a cache {1e3 * whole:.0f} ms")
    assert whole > BAR * cached
