"""Nested sets of visual tokens: one grid at several scales, each a function of every finer one.

    V_s = average_pool(V, s),     s in S, for example {576, 144, 36, 9, 1}

Averages of averages over equal blocks are averages, so that V_1, V_9, V_36, ... are nested like Matryoshka dolls. A
model trained on all of them,

    L = 1/|S| sum_s -ln p(answer | V_s, question),

answers with any number of tokens; nothing but the length of the sequence tells it the scale.

Letters: `B` pictures, `s` tokens of a grid, `D` width, `Q` questions, `S` scales.

Source: Cai et al. 2024 (Matryoshka Multimodal Models), method section.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from components.compression.pool import PoolError, average_pool, rows_of
from components.multimodal.vlm import VLM

PoolSide = Literal["after", "before"]


def check_scales(scales: Sequence[int], finest: int) -> tuple[int, ...]:
    """Return the scales, checked to be nested subsets of a grid of `finest` tokens.

    Raises:
        PoolError: A scale is no square, is named twice, or does not divide the next finer one or the grid.
    """
    ordered = sorted(scales, reverse=True)
    if not ordered or len(set(ordered)) < len(ordered):
        raise PoolError(f"scales is {list(scales)}; expected one or more different numbers of tokens.")
    grids = [rows_of(finest), *(rows_of(scale) for scale in ordered)]
    for fine, coarse in itertools.pairwise(grids):
        if fine % coarse:
            raise PoolError(
                f"scales {list(scales)} of {finest} tokens are not nested: {coarse} x {coarse} does not divide "
                f"{fine} x {fine}."
            )
    return tuple(scales)


def scaled(model: VLM, features: Tensor, scale: int, side: PoolSide = "after") -> Tensor:
    """Return a model's visual tokens (B, scale, D) at one scale.

    Args:
        model: The model.
        features: Patch features (B, P, F).
        scale: Number of tokens.
        side: Pool what the projector gives (the paper's released code), or what it reads: the projector is not
            linear, so that the two differ.

    Raises:
        PoolError: The grid has no such scale.
    """
    if side == "after":
        return average_pool(model.visual(features), scale)
    if side != "before":
        raise PoolError(f"pool side is {side!r}; expected 'after' or 'before' (the projector).")
    return model.projector(average_pool(model.cells(features).float(), scale))


def nested(model: VLM, features: Tensor, scales: Sequence[int], side: PoolSide = "after") -> list[Tensor]:
    """Return a model's visual tokens at every scale; behind the projector one pass serves all."""
    if side == "after":
        finest = model.visual(features)
        return [average_pool(finest, scale) for scale in scales]
    return [scaled(model, features, scale, side) for scale in scales]


@dataclass(frozen=True)
class Oracle:
    """What is reached when every question gets the fewest tokens that suffice.

    Attributes:
        right: Whether any scale answers rightly, bool (Q,).
        tokens: Tokens used: of the smallest right scale, or of the smallest scale where none is right, int64 (Q,).
    """

    right: Tensor
    tokens: Tensor


def oracle(right: Tensor, scales: Sequence[int]) -> Oracle:
    """Choose for each question the smallest scale that answers it.

    Args:
        right: Whether each scale answers rightly, bool (S, Q).
        scales: Tokens of each scale, in any order.
    """
    order = sorted(range(len(scales)), key=lambda index: scales[index])
    ascending = right[order]
    sizes = torch.tensor([scales[index] for index in order], device=right.device)
    # argmax finds the first True; of a question that no scale answers, the first row.
    return Oracle(ascending.any(0), sizes[ascending.to(torch.uint8).argmax(0)])


def language_flops(model: VLM, visual: int, text: int) -> float:
    """Return the floating-point operations of the language model's blocks for one sequence, forward.

        layers (2 n (4 D^2 + 3 D H) + 4 n^2 D),    n = 1 + s + T, H hidden channels of the gated MLP

    Args:
        model: The model.
        visual: s.
        text: T.
    """
    config = model.language.transformer.config
    length = 1 + visual + text
    matrices = 4 * config.width**2 + (3 if config.activation == "swiglu" else 2) * config.width * round(
        config.mlp_ratio * config.width
    )
    return float(config.layers * (2 * length * matrices + 4 * length**2 * config.width))
