"""FastV: all visual tokens in the first layers, then the K that the question's last token attends to most.

    layers 0 .. l-1   start, visual tokens, questions of a scene packed behind them
    layers l .. L-1   start, K visual tokens, question                               one sequence per question

The ranking is that of layer l - 1, averaged over heads. Every question keeps tokens of its own, which no longer see the
others, so that the questions of a scene part at layer l. Positions stay what they were.

Letters: `B` scenes, `S` = 1 + s + T tokens of a packed sequence, `M` questions of all scenes, `K` visual tokens kept,
`t` tokens of the longest question, `D` width.

Source: Chen et al. 2024 (FastV), section 4.1, with l = 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.compression.kcenter import SelectionError
from components.compression.layer_drop import attention_rows, layout_of
from components.compression.prune import top
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.vlm import VLM, Prepared


class FastV(NamedTuple):
    """What was read.

    Attributes:
        states: Normalised states of every question's last token, (M, D).
        kept: Visual tokens that each question kept, int64 (M, K), ascending.
    """

    states: Tensor
    kept: Tensor


def read(model: VLM, prepared: Prepared, text: PackedBatch, count: int, after: int = 2) -> FastV:
    """Read packed questions with all visual tokens in the first layers and `count` of them in the others.

    Args:
        model: The model.
        prepared: Sequences with all visual tokens.
        text: Their packed questions.
        count: K.
        after: l, layers that see all of them.

    Raises:
        SelectionError: There are fewer visual tokens, or the model has not so many layers.
    """
    blocks = list(model.blocks)
    visual = prepared.tokens.shape[1] - 1 - text.tokens.shape[1]
    if not 1 <= count <= visual:
        raise SelectionError(f"{count} of {visual} visual tokens cannot be kept; expected 1 to {visual}.")
    if not 1 <= after <= len(blocks):
        raise SelectionError(f"after is {after}; expected 1 to {len(blocks)} layers that see all visual tokens.")
    layout = layout_of(text, visual)
    tokens = prepared.tokens
    for block in blocks[: after - 1]:
        tokens = block(tokens, prepared.mask, False, prepared.angles, None, None, None)
    rows = attention_rows(blocks[after - 1], tokens, layout.last, mask=prepared.mask, angles=prepared.angles)
    tokens = blocks[after - 1](tokens, prepared.mask, False, prepared.angles, None, None, None)
    asked = (layout.number < layout.questions).nonzero(as_tuple=True)
    kept = top(rows[asked][:, 1 : 1 + visual], count)
    length = text.places.flatten()[text.at] + 1
    columns, inside = _columns(kept, text.at % text.tokens.shape[1] + 1 + visual, length)
    own = tokens[layout.scene[:, None], columns]
    turned = prepared.angles[:, layout.scene[:, None], 0, columns][:, :, None]
    size = columns.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=tokens.device).tril()
    mask = (causal & inside[:, None])[:, None]
    for block in blocks[after:]:
        own = block(own, mask, False, turned, None, None, None)
    last = own[torch.arange(len(own), device=own.device), count + length]
    return FastV(model.language.transformer.norm(last), kept)


def _columns(kept: Tensor, last: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the tokens of every question's own sequence lie in the packed one, and which of them exist.

    Args:
        kept: (M, K).
        last: Column of each question's last token, (M,).
        length: Tokens of each question, (M,).

    Returns:
        int64 and bool, (M, 1 + K + t).
    """
    step = torch.arange(int(length.max()) if len(length) else 0, device=kept.device)
    inside = step < length[:, None]
    text = torch.where(inside, (last - length + 1)[:, None] + step, 0)
    columns = torch.cat([kept.new_zeros(len(kept), 1), 1 + kept, text], 1)
    seen = torch.cat([inside.new_ones(len(kept), 1 + kept.shape[1]), inside], 1)
    return columns, seen
