r"""Quantizers beside vector-quantize-pytorch, and the nearest-code search beside a bare matrix product.

Forward, backward and the update of the codes, 16,384 vectors; ours and the peer's in turns, on one thread (and on a GPU
where there is one). The peer is optional and no part of the lock; without it those rows are skipped:

    pip install --no-deps --target peers vector-quantize-pytorch==1.32.0 \
        einops einx frozendict loguru torch-einops-utils
    PYTHONPATH=peers make bench
"""

from __future__ import annotations

import importlib.metadata
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import limits
import pytest
import torch
import turns
from torch import Tensor

from components.quantizers.bit_entropy import code_entropies
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.fsq import FiniteScalarQuantizer
from components.quantizers.lfq import LookupFreeQuantizer
from components.quantizers.nearest import nearest_codes
from components.quantizers.quantized import QuantizerModule
from components.quantizers.rvq import ResidualQuantizer
from components.quantizers.vq import VectorQuantizer

pytestmark = pytest.mark.benchmark_bar

VECTORS, WIDTH, DECAY = 16_384, 32, 0.99
BAR, GOAL_OVER_PRODUCT, MOST_BYTES = 1.5, 1.3, 256 << 20
LEVELS, BITS, STAGES, STAGE_SIZE = [8, 8, 8, 5, 5, 5], 12, 8, 1024
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Everything here computes on one thread."""


class Pair(NamedTuple):
    """Ours and the peer with the same codes.

    Attributes:
        ours: Our quantizer.
        peer: `vectors -> (values, loss)` of the peer, in training mode.
        width: Width of the vectors.
        peer_vectors: Vectors that the peer is given at once; its memory grows with vectors times codes, several times.
        rounds: Measured rounds.
    """

    ours: QuantizerModule
    peer: Callable[[Tensor], tuple[Tensor, Tensor]]
    width: int
    peer_vectors: int = VECTORS
    rounds: int = 7


def _peer_options() -> dict:
    # The same rule on both sides: moving averages, straight-through gradient, no restarts.
    return {"decay": DECAY, "threshold_ema_dead_code": 0, "commitment_weight": 0.25, "rotation_trick": False}


def _give_codes(codebook, codes: Tensor) -> None:
    codebook.embed.data.copy_(codes.unsqueeze(0))
    codebook.embed_avg.data.copy_(codes.unsqueeze(0))


def vq(peers, device: str, size: int) -> Pair:
    ours = EuclideanQuantizer(size, WIDTH, code_ema_decay=DECAY).to(device)
    theirs = peers.VectorQuantize(dim=WIDTH, codebook_size=size, **_peer_options()).to(device)
    _give_codes(theirs._codebook, ours.codebook.weight)
    wide = size > 8192
    return Pair(
        ours, lambda vectors: theirs(vectors)[::2], WIDTH, peer_vectors=2048 if wide else VECTORS,
        rounds=3 if size > 1024 else 7,
    )  # fmt: skip


def cosine_vq(peers, device: str) -> Pair:
    ours = VectorQuantizer(STAGE_SIZE, WIDTH, code_ema_decay=DECAY).to(device)
    theirs = peers.VectorQuantize(dim=WIDTH, codebook_size=STAGE_SIZE, use_cosine_sim=True, **_peer_options()).to(
        device
    )
    _give_codes(theirs._codebook, ours.weight)
    return Pair(ours, lambda vectors: theirs(vectors)[::2], WIDTH)


def rvq(peers, device: str) -> Pair:
    ours = ResidualQuantizer(STAGE_SIZE, WIDTH, codebooks=STAGES, code_ema_decay=DECAY).to(device)
    theirs = peers.ResidualVQ(dim=WIDTH, codebook_size=STAGE_SIZE, num_quantizers=STAGES, **_peer_options()).to(device)
    for layer, codebook in zip(theirs.layers, ours.codebooks, strict=True):
        _give_codes(layer._codebook, codebook.weight)
    return Pair(ours, lambda vectors: theirs(vectors)[::2], WIDTH, rounds=3)


def fsq(peers, device: str) -> Pair:
    theirs = peers.FSQ(LEVELS).to(device)
    ours = FiniteScalarQuantizer(LEVELS).to(device)
    return Pair(ours, lambda vectors: (theirs(vectors)[0], vectors.new_zeros(())), len(LEVELS), rounds=100)


def lfq(peers, device: str) -> Pair:
    # The peer's entropy of the batch enumerates all 2^12 codes for every vector; ours is the factorised one.
    theirs = peers.LFQ(codebook_size=1 << BITS, commitment_loss_weight=0.25).to(device)
    ours = LookupFreeQuantizer(BITS).to(device)
    return Pair(ours, lambda vectors: theirs(vectors)[::2], BITS, rounds=3)


PAIRS: dict[str, Callable] = {
    "vq-1024": lambda peers, device: vq(peers, device, 1024),
    "vq-8192": lambda peers, device: vq(peers, device, 8192),
    "vq-65536": lambda peers, device: vq(peers, device, 65_536),
    "cosine-vq-1024": cosine_vq,
    "rvq-8x1024": rvq,
    "fsq-8-8-8-5-5-5": fsq,
    "lfq-12-bits": lfq,
}


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def backward(values: Tensor, loss: Tensor, upstream: Tensor) -> None:
    if loss.requires_grad:
        torch.autograd.backward((values, loss), (upstream, torch.ones_like(loss)))
    else:
        values.backward(upstream)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PAIRS)
def test_a_training_pass_is_half_as_fast_again_as_the_peers(name, device, benchmark):
    peers = pytest.importorskip("vector_quantize_pytorch", reason="the peer is not installed")
    torch.manual_seed(0)
    pair = PAIRS[name](peers, device)
    pair.ours.train()
    vectors = torch.randn(1, VECTORS, pair.width, device=device)
    upstream = torch.randn_like(vectors)
    some = vectors[:, : pair.peer_vectors]
    generator = torch.Generator()

    # Near a tie two ways of rounding may name two codes; both are then equally near.
    with torch.no_grad():
        theirs, mine = pair.peer(some)[0], pair.ours(some).values
    pair.ours.after_step(0, generator)
    same = float((theirs - mine).abs().amax(-1).lt(1e-4).float().mean())

    def own() -> None:
        values, _, loss = pair.ours(vectors.detach().requires_grad_())
        backward(values, loss, upstream)
        pair.ours.after_step(0, generator)

    def peer() -> None:
        values, loss = pair.peer(some.detach().requires_grad_())
        backward(values, loss.sum(), upstream[:, : pair.peer_vectors])

    own_rates, peer_rates = [], []

    def interleaved() -> None:
        own_rates.append(VECTORS / seconds(own, device))
        peer_rates.append(pair.peer_vectors / seconds(peer, device))

    benchmark.pedantic(interleaved, rounds=pair.rounds, warmup_rounds=1)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(own_rates[1:], peer_rates[1:], strict=True))
    benchmark.extra_info.update(
        device=device,
        ours_vectors_per_second=round(statistics.median(own_rates[1:])),
        peer_vectors_per_second=round(statistics.median(peer_rates[1:])),
        peer_vectors_at_once=pair.peer_vectors,
        ratio=round(ratio, 2),
        interval=turns.interval([one / other for one, other in zip(own_rates[1:], peer_rates[1:], strict=True)]),
        bar_ratio=BAR,
        share_of_equal_codes=same,
        peer="vector-quantize-pytorch " + importlib.metadata.version("vector-quantize-pytorch"),
    )
    print(benchmark.extra_info)
    assert same > 0.999
    assert ratio >= BAR


APART = ("vq-1024", "vq-8192", "rvq-8x1024", "fsq-8-8-8-5-5-5", "lfq-12-bits")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", APART)
def test_forward_backward_and_memory_apart(name, device, benchmark):
    """The public table: vectors a second of each pass beside the peer and the limit, and what a training pass takes."""
    peers = pytest.importorskip("vector_quantize_pytorch", reason="the peer is not installed")
    torch.manual_seed(0)
    pair = PAIRS[name](peers, device)
    pair.ours.train()
    vectors = torch.randn(1, VECTORS, pair.width, device=device)
    upstream, generator = torch.randn_like(vectors), torch.Generator()
    times: dict[str, list[float]] = {}

    def timed(which: str, forward: Callable[[], tuple[Tensor, Tensor]], after: Callable[[], object]) -> None:
        found = []
        times.setdefault(f"{which} forward", []).append(seconds(lambda: found.append(forward()), device))

        def back() -> None:
            backward(found[0][0], found[0][1].sum(), upstream)
            after()

        times.setdefault(f"{which} backward", []).append(seconds(back, device))

    def own() -> tuple[Tensor, Tensor]:
        values, _, loss = pair.ours(vectors.detach().requires_grad_())
        return values, loss

    def peer() -> tuple[Tensor, Tensor]:
        return pair.peer(vectors.detach().requires_grad_())

    def own_pass() -> None:
        timed("own", own, lambda: pair.ours.after_step(0, generator))

    def peer_pass() -> None:
        timed("peer", peer, lambda: None)

    def interleaved() -> None:
        own_pass()
        peer_pass()

    benchmark.pedantic(interleaved, rounds=max(3, min(pair.rounds, 20)), warmup_rounds=1)
    kept = {which: values[1:] for which, values in times.items()}
    found = {
        way: turns.facts(kept[f"own {way}"], kept[f"peer {way}"], amount=VECTORS) for way in ("forward", "backward")
    }
    bounds = limits_of(name, pair.width, device)
    benchmark.extra_info.update(
        device=device,
        forward=found["forward"] | {"limit": bounds[0]},
        backward=found["backward"] | {"limit": bounds[1]},
        memory=_memory(own_pass, peer_pass, device),
    )
    print(benchmark.extra_info)
    assert benchmark.extra_info["forward"]["ratio"] >= 1


def limits_of(name: str, width: int, device: str) -> tuple[float, float]:
    """Return the most vectors a second of both passes: a product where codes are compared, else memory moved once."""
    moved = limits.bytes_per_second(device)
    # Forward reads vectors and writes values and int64 indices; backward reads and writes a gradient.
    streamed = moved / (8 * width + 8)
    operations = {"vq-1024": 2 * 1024 * width, "vq-8192": 2 * 8192 * width, "rvq-8x1024": 2 * 8 * 1024 * width}
    forward = limits.products_per_second(device) / operations[name] if name in operations else streamed
    return forward, moved / (8 * width)


def _memory(own: Callable[[], object], peer: Callable[[], object], device: str) -> dict[str, float]:
    measure = turns.peak_bytes if device == "cpu" else lambda work: _peak_bytes(work, device)
    return {name: round(measure(work) / 2**20, 2) for name, work in (("ours", own), ("peer", peer))}


def test_the_factorised_entropies_are_beside_the_full_form_at_2_to_the_8(benchmark):
    bits, codes = 8, torch.tensor([[1.0 if code >> bit & 1 else -1.0 for bit in range(8)] for code in range(256)])
    logits = torch.randn(VECTORS, bits, generator=torch.Generator().manual_seed(0))

    def full(given: Tensor) -> tuple[Tensor, Tensor]:
        # p(c | z) is proportional to exp(sum_i c_i l_i / 2), the product over bits written out over all codes.
        log_p = (given @ codes.t() / 2).log_softmax(-1)
        mean = log_p.exp().mean(0)
        return -(log_p.exp() * log_p).sum(-1).mean(), torch.special.entr(mean).sum()

    def gradient(entropies: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        given = logits.detach().requires_grad_()
        per_vector, of_batch = entropies(given)
        (per_vector - of_batch).backward()
        return given.grad

    mine, theirs = code_entropies(logits), full(logits)
    torch.testing.assert_close(mine.per_vector, theirs[0], rtol=1e-5, atol=1e-5)
    surplus = float(mine.of_batch - theirs[1])
    times = turns.in_turns(
        benchmark, {"ours": lambda: gradient(code_entropies), "peer": lambda: gradient(full)}, rounds=15
    )
    found = turns.facts(times["ours"], times["peer"], amount=VECTORS)
    benchmark.extra_info.update(
        found,
        limit=limits.bytes_per_second() / (8 * bits),
        entropy_of_batch_above_the_full_form_nats=surplus,
        error_per_vector_nats=float((mine.per_vector - theirs[0]).abs()),
    )
    print(benchmark.extra_info)
    assert surplus >= -1e-4
    assert found["ratio"] >= 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1024, 8192, 65_536])
def test_the_search_is_compared_with_a_bare_matrix_product_of_the_same_size(size, device, benchmark):
    vectors, codes = torch.randn(VECTORS, WIDTH, device=device), torch.randn(size, WIDTH, device=device)
    # The product's result goes into memory that is there already: fresh pages would cost more than the product.
    rows = min(VECTORS, (256 << 20) // (4 * size))
    result, transposed = torch.empty(rows, size, device=device), codes.t()
    search_seconds, product_seconds = [], []

    def product() -> None:
        for chunk in vectors.split(rows):
            torch.mm(chunk, transposed, out=result)

    def interleaved() -> None:
        search_seconds.append(seconds(lambda: nearest_codes(vectors, codes), device))
        product_seconds.append(seconds(product, device))

    benchmark.pedantic(interleaved, rounds=5 if size > 8192 else 15, warmup_rounds=1)
    times = zip(search_seconds[1:], product_seconds[1:], strict=True)
    benchmark.extra_info.update(
        device=device,
        search_seconds=round(statistics.median(search_seconds[1:]), 4),
        product_seconds=round(statistics.median(product_seconds[1:]), 4),
        times_the_product=round(statistics.median(search / product for search, product in times), 2),
        goal_times_the_product=GOAL_OVER_PRODUCT,
    )
    print(benchmark.extra_info)


@pytest.mark.parametrize("device", DEVICES)
def test_the_search_needs_at_most_256_mebibytes_for_65536_codes(device, benchmark):
    vectors, codes = torch.randn(VECTORS, WIDTH, device=device), torch.randn(65_536, WIDTH, device=device)
    # Loads what a first call loads, with little memory of its own: freed memory may stay in the process and hide use.
    nearest_codes(vectors[:300], codes[:9000])
    extra = []
    benchmark.pedantic(
        lambda: extra.append(_peak_bytes(lambda: nearest_codes(vectors, codes), device)), rounds=2, warmup_rounds=0
    )
    benchmark.extra_info.update(device=device, peak_extra_mebibytes=round(max(extra) / 2**20, 1), bar_mebibytes=256)
    print(benchmark.extra_info)
    assert max(extra) <= MOST_BYTES


def _peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return how far memory rises above its level before `work`: resident memory, or what CUDA allocates."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pytest.skip("the peak of resident memory can only be reset on Linux")
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def _status_bytes(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
