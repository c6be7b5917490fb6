"""Merging tokens beside a straightforward ToMe, and from how many tokens on a network that merges is faster.

The peer is ToMe as its paper describes it, written down step by step: unit metric, similarity of even and odd places,
best edge of each, sort, gather with expanded indices, scatter-add of weighted tokens. Ours must merge at least as fast;
what the energy of PiToMe costs beyond that is recorded. One thread (and a GPU where there is one).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from turns import in_turns, seconds

from components.compression.merging.encoder import reduced
from components.compression.merging.pitome import PiToMe
from components.compression.merging.plan import Depth, Reducer, merged, to_remove
from components.compression.merging.tome import ToMe
from components.nn.vit import PatchViT

pytestmark = pytest.mark.benchmark_bar

BATCH, TOKENS, WIDTH, METRIC = 32, 1024, 192, 64
BAR = 1.0
SIDES = (8, 12, 16, 24, 32)  # rows of patches
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def straightforward(metric: Tensor, tokens: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge `count` tokens (B, N, D) as ToMe does; their sizes are (B, N, 1)."""
    unit = F.normalize(metric, dim=-1)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    strength, partner = scores.max(-1)
    order = strength.argsort(dim=1, descending=True)
    sources, others = order[:, :count, None], order[:, count:, None]
    targets = partner[..., None].gather(1, sources)

    def total(values: Tensor) -> Tensor:
        even, odd = values[:, ::2], values[:, 1::2]
        width = values.shape[-1]
        joining = even.gather(1, sources.expand(-1, -1, width))
        passing = even.gather(1, others.expand(-1, -1, width))
        return torch.cat([passing, odd.scatter_add(1, targets.expand(-1, -1, width), joining)], 1)

    mass = total(sizes)
    return total(tokens * sizes) / mass, mass


@torch.no_grad()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ratio", [0.9, 0.7])
def test_merging_is_at_least_as_fast_as_a_straightforward_tome(ratio, device, benchmark):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(BATCH, TOKENS, WIDTH, generator=generator).to(device)
    metric = torch.randn(BATCH, TOKENS, METRIC, generator=generator).to(device)
    sizes = torch.randint(1, 4, (BATCH, TOKENS), generator=generator).float().to(device)
    count = to_remove(TOKENS, ratio)

    def ours(method: Reducer) -> tuple[Tensor, Tensor]:
        return merged(method.plan(metric, count, Depth()), tokens, sizes)

    # The same tokens come out, in another order: sums of tokens and of their squares agree.
    mine, theirs = ours(ToMe())[0], straightforward(metric, tokens, sizes[..., None], count)[0]
    torch.testing.assert_close(mine.sum(1), theirs.sum(1), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(mine.square().sum(1), theirs.square().sum(1), rtol=1e-3, atol=1e-2)
    works = {
        "ours": lambda: ours(ToMe()),
        "peer": lambda: straightforward(metric, tokens, sizes[..., None], count),
        "pitome": lambda: ours(PiToMe()),
    }
    own, peer, method = in_turns(benchmark, works, rounds=11, device=device).values()
    ratio_to_peer = statistics.median(other / one for one, other in zip(own, peer, strict=True))
    benchmark.extra_info.update(
        device=device,
        keep_ratio=ratio,
        ours_milliseconds=round(1e3 * statistics.median(own), 2),
        peer_milliseconds=round(1e3 * statistics.median(peer), 2),
        pitome_milliseconds=round(1e3 * statistics.median(method), 2),
        ratio=round(ratio_to_peer, 2),
        bar_ratio=BAR,
        peer="ToMe, written down step by step",
    )
    print(benchmark.extra_info)
    assert ratio_to_peer >= BAR


@torch.no_grad()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ratio", [0.9, 0.8])
def test_from_how_many_tokens_on_a_network_that_merges_is_faster(ratio, device, benchmark):
    speeds: dict[int, dict[str, list[float]]] = {}
    works: dict[int, dict[str, Callable[[], object]]] = {}
    for rows in SIDES:
        torch.manual_seed(0)
        model = PatchViT(image_side=4 * rows, patch_size=4, width=WIDTH, layers=6, heads=3).eval().to(device)
        images = torch.rand(1 if device == "cpu" else BATCH, 3, 4 * rows, 4 * rows, device=device)
        works[rows] = {
            name: functools.partial(reduced, model, images, method, [keep] * 6)
            for name, method, keep in (("whole", None, 1.0), ("pitome", PiToMe(), ratio), ("tome", ToMe(), ratio))
        }
        speeds[rows] = {name: [] for name in works[rows]}

    def interleaved() -> None:
        for rows, own in works.items():
            for name, work in own.items():
                speeds[rows][name].append(seconds(work, device))

    benchmark.pedantic(interleaved, rounds=9, warmup_rounds=1)
    facts = {}
    for name in ("pitome", "tome"):
        gains = {}
        for rows, own in speeds.items():
            pairs = zip(own["whole"][1:], own[name][1:], strict=True)
            gains[rows**2] = round(statistics.median(whole / mine for whole, mine in pairs), 2)
        # The shortest sequence from which on every longer one gains, too.
        faster = [tokens for tokens in gains if all(gains[each] > 1 for each in gains if each >= tokens)]
        facts |= {f"{name}_speed_over_whole": gains, f"{name}_faster_from_tokens": min(faster, default=None)}
    benchmark.extra_info.update(device=device, keep_ratio=ratio, batch=1 if device == "cpu" else BATCH, **facts)
    print(benchmark.extra_info)
    assert facts["pitome_speed_over_whole"][max(SIDES) ** 2] > 1
