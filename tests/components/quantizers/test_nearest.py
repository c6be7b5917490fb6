"""Nearest-code search against brute force, in pieces of any size, precision and memory."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from components.quantizers import nearest
from components.quantizers.nearest import nearest_codes


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 9), st.integers(0, 10**6))
def test_the_nearest_code_is_the_nearest_by_brute_force(vectors, codes, dim, seed):
    points = torch.randn(vectors, dim, generator=generator(seed))
    book = torch.randn(codes, dim, generator=generator(seed + 1))
    brute = (points[:, None] - book[None]).square().sum(-1)
    found = brute.gather(1, nearest_codes(points, book)[:, None]).squeeze(1)
    torch.testing.assert_close(found, brute.min(1).values)


@pytest.mark.parametrize("size", [255, 256, 257, 900, 1024])
def test_the_search_by_blocks_is_argmax_itself(size):
    tile = torch.randn(50, size, generator=generator(size)).mul(2).round()
    best, at = nearest._first_largest(tile)
    assert torch.equal(at, tile.argmax(1))
    assert torch.equal(best, tile.amax(1))


@pytest.mark.parametrize("size", [13, 700])
def test_tiles_change_no_index_and_keep_the_leading_axes(monkeypatch, size):
    points, book = torch.randn(7, 11, 5, generator=generator()), torch.randn(size, 5, generator=generator(1))
    whole = nearest_codes(points, book)
    assert whole.shape == (7, 11)
    monkeypatch.setattr(nearest, "_TILE", 40 * size)
    assert torch.equal(nearest_codes(points, book), whole)
    monkeypatch.setattr(nearest, "_FULL_WIDTH", 4)
    for rows, columns in ((3, 4), (10, 300), (100, 1)):
        monkeypatch.setattr(nearest, "_WIDE_ROWS", rows)
        monkeypatch.setattr(nearest, "_WIDE_COLUMNS", columns)
        assert torch.equal(nearest_codes(points, book), whole)


@pytest.mark.parametrize("columns", [1 << 13, 300])
def test_of_equally_near_codes_the_first_wins_across_blocks_and_tiles(monkeypatch, columns):
    monkeypatch.setattr(nearest, "_FULL_WIDTH", 1)
    monkeypatch.setattr(nearest, "_WIDE_COLUMNS", columns)
    book = torch.randn(8, 4, generator=generator()).repeat(90, 1)
    points = torch.randn(60, 4, generator=generator(1))
    assert int(nearest_codes(points, book).max()) < 8


def test_half_precision_is_compared_in_full_also_inside_autocast():
    points, book = torch.randn(200, 8, generator=generator()), torch.randn(300, 8, generator=generator(1))
    whole = nearest_codes(points, book)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_codes(points, book), whole)
    half = nearest_codes(points.bfloat16(), book.bfloat16())
    assert torch.equal(half, nearest_codes(points.bfloat16().float(), book.bfloat16().float()))


def test_no_vectors_have_no_codes_and_no_gradient_is_recorded():
    book = torch.randn(9, 3, requires_grad=True)
    assert nearest_codes(torch.empty(2, 0, 3), book).shape == (2, 0)
    assert not nearest_codes(torch.randn(4, 3, requires_grad=True), book).requires_grad


class PeakMemory(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make, while they live."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.seen:
                key, size = storage._cdata, storage.nbytes()
                self.seen[key] = weakref.finalize(storage, self._freed, key, size)
                self.live += size
                self.peak = max(self.peak, self.live)
        return made

    def _freed(self, key, size):
        self.live -= size
        del self.seen[key]


@pytest.mark.parametrize("size", [1024, 8192, 65_536])
def test_the_search_holds_much_less_than_a_score_for_every_vector_and_code(size):
    # Tensors without data: the same operations, and only their sizes. All scores would be 16 MiB and more.
    points, book = torch.empty(4096, 32, device="meta"), torch.empty(size, 32, device="meta")
    with PeakMemory() as memory:
        nearest_codes(points, book)
    assert 0 < memory.peak < 16 << 20


def test_a_gpu_search_holds_at_most_256_mebibytes_of_scores():
    assert nearest._GPU_TILE * 4 <= 256 << 20


@pytest.mark.gpu
def test_the_device_changes_no_index():
    points, book = torch.randn(500, 8, generator=generator()), torch.randn(3000, 8, generator=generator(1))
    assert torch.equal(nearest_codes(points.cuda(), book.cuda()).cpu(), nearest_codes(points, book))
