"""Nearest-code search.

Letters: `...` any leading axes (batch, tokens), `N` vectors, `D` width of a vector, `K` codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.quantizers.precision import exact, without_autocast

# The scores of one tile stay in a core's cache: 2**18 floats are 1 MiB.
_TILE = 1 << 18
# A codebook wider than this is searched in pieces, or a tile would be a few rows high and read all codes for them.
_FULL_WIDTH = 1 << 13
_WIDE_ROWS, _WIDE_COLUMNS = 256, 1 << 11
# A GPU wants few large kernels; 2**25 floats are 128 MiB.
_GPU_TILE = 1 << 25
_BLOCK = 128


@torch.no_grad()
def nearest_codes(vectors: Tensor, codes: Tensor) -> Tensor:
    """Return the index of the nearest code of every vector, in squared distance.

    `argmin_k ||v - e_k||^2 = argmax_k (v . e_k - ||e_k||^2 / 2)`: one matrix product per tile of vectors and codes.
    No tensor of shape (N, K) or (N, K, D) is ever formed. Of codes with equal scores the first wins. Half-precision
    input is compared in float32, inside autocast as well: rounded scores would name other codes.

    Args:
        vectors: (..., D).
        codes: (K, D).

    Returns:
        int64 (...).
    """
    flat = exact(vectors).reshape(-1, vectors.shape[-1])
    codes = exact(codes)
    count, size = flat.shape[0], codes.shape[0]
    on_gpu = flat.device.type == "cuda"
    if on_gpu or size <= _FULL_WIDTH:
        rows, columns = max(1, (_GPU_TILE if on_gpu else _TILE) // size), size
    else:
        rows, columns = _WIDE_ROWS, _WIDE_COLUMNS
    with without_autocast(flat.device):
        offset = codes.square().sum(1).mul(-0.5)
        pieces = list(zip(offset.split(columns), codes.t().split(columns, 1), strict=True))
        found = torch.empty(count, dtype=torch.int64, device=flat.device)
        scores = flat.new_empty(min(rows, count) * columns)
        for chunk, target in zip(flat.split(rows), found.split(rows), strict=True):
            best = at = None
            first = 0
            for constant, piece in pieces:
                shape = chunk.shape[0], len(constant)
                tile = scores[: shape[0] * shape[1]].view(shape)
                torch.addmm(constant, chunk, piece, out=tile)
                top, index = tile.max(1) if on_gpu else _first_largest(tile)
                if best is None:
                    best, at = top, index
                else:
                    at = torch.where(top > best, index + first, at)
                    best = torch.maximum(best, top)
                first += len(constant)
            target.copy_(at)
    return found.view(vectors.shape[:-1])


def _first_largest(tile: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest score of every row (rows,) and its first index: `tile.max(1)`, several times faster on a CPU.

    Finding an index cannot be vectorised, finding a maximum can: blocks of columns first, then the winning block.
    """
    blocked = tile.shape[1] // _BLOCK * _BLOCK
    if blocked < 2 * _BLOCK:
        return tile.max(1)
    blocks = tile[:, :blocked].unflatten(1, (-1, _BLOCK))
    best, block = blocks.amax(2).max(1)
    winning = blocks.gather(1, block.view(-1, 1, 1).expand(-1, 1, _BLOCK)).squeeze(1)
    at = winning.argmax(1).add_(block, alpha=_BLOCK)
    if blocked < tile.shape[1]:
        last, index = tile[:, blocked:].max(1)
        at = torch.where(last > best, index + blocked, at)
        best = torch.maximum(best, last)
    return best, at
