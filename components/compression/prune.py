"""Keeping some of a picture's tokens: one interface for every way to choose them.

    select(features, attention, K) -> indices        (B, N, D), (B, N) or None, K  ->  int64 (B, K), ascending

Indices are in raster order, so that `tokens.gather` keeps the order and `indices` the positions of what stays. A
selection never sees a question; whatever needs one works inside the language model (`fastv`, `layer_drop`).

For a picture in tiles, `attention` is that of its thumbnail and -inf for the tokens of the tiles; for a video it is
that of every frame in its own frame, so that the start is the highest of the frames' maxima.

Letters: `B` pictures, `N` tokens of a picture, `K` tokens kept, `D` width, `H` heads.

Sources: Li et al. 2025 (ToDRE), section 3.2 and table of starts; Zhang et al. 2024 (FasterVLM: the highest attention
of the class token).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.compression import pool
from components.compression.kcenter import (
    Objective,
    SelectionError,
    check_count,
    distances,
    greedy_order,
    unit_features,
)
from components.errors import did_you_mean
from components.nn.attention_map import attention_map
from components.nn.vit import PatchViT

Select = Callable[[Tensor, Tensor | None, int], Tensor]
"""(features, attention, K) -> indices; see the module."""
Start = Literal["cls_max", "random", "center", "far_mean"]
"""Where a greedy choice starts: the highest class attention, a random token, the one nearest to the mean of the
features, or the one farthest from it."""


def kcenter(
    features: Tensor,
    attention: Tensor | None,
    count: int,
    *,
    start: Start = "cls_max",
    objective: Objective = "maxmin",
    remove_mean: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Keep a diverse subset: greedy k-center, or max-sum diversification.

    Raises:
        SelectionError: There are fewer tokens, or the start needs what is not given.
    """
    check_count(features, count)
    first = pivot(features, attention, start, generator)
    return greedy_order(features, count, first, objective=objective, remove_mean=remove_mean).sort(1).values


def pivot(features: Tensor, attention: Tensor | None, start: Start, generator: torch.Generator | None = None) -> Tensor:
    """Return the token that a greedy choice starts from, int64 (B,).

    Distances to the mean are taken before any mean is removed: afterwards it has no direction.

    Raises:
        SelectionError: The start is unknown, or needs attention or a generator that is not given.
    """
    if start == "cls_max":
        return _known(attention, "start 'cls_max'").argmax(1)
    if start == "random":
        if generator is None:
            raise SelectionError("start 'random' needs a generator; give one, or choose another start.")
        shape = (len(features),)
        drawn = torch.randint(features.shape[1], shape, generator=generator, device=generator.device)
        return drawn.to(features.device)
    if start not in ("center", "far_mean"):
        raise SelectionError(f"start is {start!r}; expected 'cls_max', 'random', 'center' or 'far_mean'.")
    units = unit_features(features)
    mean = F.normalize(features.double().mean(1), dim=-1)
    away = distances(units, mean)
    return away.argmin(1) if start == "center" else away.argmax(1)


def cls_topk(features: Tensor, attention: Tensor | None, count: int) -> Tensor:
    """Keep the tokens that the class token attends to most; of equal ones those with the smallest indices.

    Raises:
        SelectionError: There are fewer tokens, or no attention is given.
    """
    check_count(features, count)
    return top(_known(attention, "selection 'cls_topk'"), count)


def random(
    features: Tensor, attention: Tensor | None, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Keep tokens drawn for each picture without replacement.

    Raises:
        SelectionError: There are fewer tokens, or no generator is given.
    """
    check_count(features, count)
    if generator is None:
        raise SelectionError("selection 'random' needs a generator.")
    return pool.random(features, count, generator)


def uniform(features: Tensor, attention: Tensor | None, count: int) -> Tensor:
    """Keep an even grid: about sqrt(K) rows, evenly far apart, each with its share of the tokens, evenly far apart.

    Where K is a square that divides the grid it is `pool.uniform`.

    Raises:
        SelectionError: There are fewer tokens.
        PoolError: The tokens form no square grid.
    """
    check_count(features, count)
    side = pool.rows_of(features.shape[1])
    rows = max(round(math.sqrt(count)), math.ceil(count / side))
    share = [count * (row + 1) // rows - count * row // rows for row in range(rows)]
    places = [
        int((row + 0.5) * side / rows) * side + int((column + 0.5) * side / own)
        for row, own in enumerate(share)
        for column in range(own)
    ]
    return torch.tensor(places, device=features.device).expand(len(features), -1)


def top(values: Tensor, count: int) -> Tensor:
    """Return the indices of the K largest of values (..., N), ascending; of equal ones the first."""
    return values.sort(dim=-1, descending=True, stable=True).indices[..., :count].sort(-1).values


def class_attention(encoder: PatchViT, tokens: Tensor) -> Tensor:
    """Return how much the class token attends to each patch in an encoder's last block, averaged over heads, (B, P).

    Args:
        encoder: The encoder.
        tokens: What its last block reads, (B, 1 + P, D): `encoder.hidden(images, encoder.layers - 1)`.
    """
    rows = attention_map(encoder.blocks[-1], tokens, queries=torch.zeros(1, dtype=torch.int64, device=tokens.device))
    return rows[:, :, 0, 1:].mean(1)


def build(
    selection: str,
    *,
    start: Start = "cls_max",
    remove_mean: bool = False,
    generator: torch.Generator | None = None,
) -> Select:
    """Return a selection by name: kcenter, maxsum, cls_topk, random or uniform.

    Args:
        selection: The name.
        start: Where kcenter and maxsum start.
        remove_mean: Whether they subtract the mean of a picture's features first.
        generator: Source of randomness of `random` and of the random start.

    Raises:
        SelectionError: There is no such selection.
    """
    greedy = partial(kcenter, start=start, remove_mean=remove_mean, generator=generator)
    known: dict[str, Select] = {
        "kcenter": greedy,
        "maxsum": partial(greedy, objective="maxsum"),
        "cls_topk": cls_topk,
        "random": partial(random, generator=generator),
        "uniform": uniform,
    }
    if selection not in known:
        raise SelectionError(
            f"{selection!r} is no selection; expected one of {', '.join(known)}.{did_you_mean(selection, known)}"
        )
    return known[selection]


def _known(attention: Tensor | None, what: str) -> Tensor:
    if attention is None:
        raise SelectionError(
            f"{what} needs the attention of a class token; an encoder without one can start from 'random' instead."
        )
    return attention
