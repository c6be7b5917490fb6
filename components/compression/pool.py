"""Fewer visual tokens by pooling their grid, or by keeping some of them.

Letters: `B` pictures, `s` tokens of a grid of `r` rows and columns (s = r^2, raster order), `D` width.

Source: Cai et al. 2024 (Matryoshka Multimodal Models): average pooling of the method, and the selections at test time
that it is compared with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from components.errors import TesseraError


class PoolError(TesseraError):
    """A grid of tokens cannot be reduced to so many."""


def rows_of(tokens: int) -> int:
    """Return r, the rows of a square grid of s = r^2 tokens.

    Raises:
        PoolError: The number is no square.
    """
    rows = math.isqrt(tokens)
    if tokens < 1 or rows**2 != tokens:
        raise PoolError(f"{tokens} tokens form no square grid; expected 1, 4, 9, 16, ...")
    return rows


def average_pool(tokens: Tensor, count: int) -> Tensor:
    """Average square blocks of a grid: kernel = stride = r / sqrt(count).

    Args:
        tokens: (B, s, D), a square grid.
        count: Tokens that remain; sqrt(count) divides r.

    Returns:
        (B, count, D), in raster order; the very tokens where count = s.

    Raises:
        PoolError: A number is no square, or the coarse grid does not divide the fine one.
    """
    fine, coarse = rows_of(tokens.shape[1]), rows_of(count)
    if fine % coarse:
        raise PoolError(f"a grid of {fine} x {fine} cannot be pooled to {coarse} x {coarse}; choose a divisor.")
    if fine == coarse:
        return tokens
    side = fine // coarse
    return tokens.unflatten(1, (coarse, side, coarse, side)).mean((2, 4)).flatten(1, 2)


def uniform(tokens: Tensor, count: int) -> Tensor:
    """Return the places (count,) of an even grid: the centre of each block that `average_pool` would average.

    Args:
        tokens: (B, s, D), a square grid.
        count: Tokens that remain; sqrt(count) divides r.

    Raises:
        PoolError: As in `average_pool`.
    """
    fine, coarse = rows_of(tokens.shape[1]), rows_of(count)
    if fine % coarse:
        raise PoolError(f"a grid of {fine} x {fine} has no even grid of {coarse} x {coarse}; choose a divisor.")
    side = fine // coarse
    # Of an even block the lower right of the four middle tokens.
    line = torch.arange(coarse, device=tokens.device) * side + side // 2
    return (line[:, None] * fine + line).flatten()


def sequential(tokens: Tensor, count: int) -> Tensor:
    """Return the places (count,) of the first tokens.

    Raises:
        PoolError: There are fewer.
    """
    _check(tokens, count)
    return torch.arange(count, device=tokens.device)


def random(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return places (B, count) drawn for each picture without replacement, ascending.

    Args:
        tokens: (B, s, D).
        count: Tokens that remain.
        generator: Source of randomness, on any device.

    Raises:
        PoolError: There are fewer.
    """
    _check(tokens, count)
    keys = torch.rand(tokens.shape[:2], generator=generator, device=generator.device).to(tokens.device)
    return keys.argsort(1)[:, :count].sort(1).values


def kept(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens (B, count, D) at some places, (count,) or (B, count)."""
    places = places.expand(len(tokens), -1)
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def _check(tokens: Tensor, count: int) -> None:
    if not 1 <= count <= tokens.shape[1]:
        raise PoolError(f"{count} of {tokens.shape[1]} tokens cannot be kept; expected 1 to {tokens.shape[1]}.")
