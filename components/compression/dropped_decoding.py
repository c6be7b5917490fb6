"""Decoding behind a drop: hidden states, keys and values of dropped visual tokens are gone, not only hidden.

    layer      0 .. l-1                          l .. L-1
    dropped    start, visual, question, ...      start, question, ...
    others     start, visual, question, ...      start, visual, question, ...       keys and values kept

The decision falls once, in prefill, for each sequence of a batch; every generated token then meets the shorter cache in
those layers. Positions stay the original ones, so that this is the masked sequence of `layer_drop.read`, for less.

Letters: `B` sequences, `s` visual tokens, `T` tokens of a question, `D` width, `L` layers, `V` words.

Source: Li et al. 2025 (ToDRE), section 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.compression.layer_drop import DropRule, Layout, check_layers
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.vlm import VLM
from components.nn.transformer import KeyValueCache


class _Group(NamedTuple):
    """Sequences of a batch that have the same tokens left."""

    rows: Tensor
    tokens: Tensor
    mask: Tensor
    angles: Tensor


class DroppingDecoder:
    """Prefill of one question per picture, and decoding step by step.

    Args:
        model: The model.
        visual: Visual tokens (B, s, D).
        question: Word ids, int64 (B, T), as `text_batch` gives them.
        rule: When visual tokens are dropped; None for never.
        places: Positions of the visual tokens, int64 (s,) or (B, s), from 1; 1 .. s where None.
        text_place: Position of the question's first token; s + 1 where None.
        steps: Most tokens that will be decoded behind the question.

    Attributes:
        layers: Layer from which on each sequence has no visual token, int64 (B,); L where it keeps them.
        logits: Logits of the token behind the question, (B, V).

    Raises:
        DropError: The rule names a layer that the model does not have.
    """

    def __init__(
        self,
        model: VLM,
        visual: Tensor,
        question: Tensor,
        rule: DropRule | None = None,
        *,
        places: Tensor | None = None,
        text_place: int | None = None,
        steps: int = 0,
    ) -> None:
        if rule is not None:
            check_layers(rule, len(model.blocks))
        self._model = model
        batch, length = question.shape
        self._next = length + (1 + visual.shape[1] if text_place is None else text_place)
        prepared = model.prepare(visual, _texts(question), places=places, text_place=text_place)
        rows = torch.arange(batch, device=visual.device)
        groups = [_Group(rows, prepared.tokens, prepared.mask, prepared.angles)]
        self.layers = torch.full_like(rows, len(model.blocks))
        self._kept: list[list[tuple[Tensor, KeyValueCache]]] = []
        for layer, block in enumerate(model.blocks):
            if rule is not None and layer in rule.layers:
                groups = self._split(groups, rule, layer, block, visual.shape[1], length)
            kept = []
            for index, group in enumerate(groups):
                cache = KeyValueCache(group.tokens.shape[1] + steps)
                tokens = block(group.tokens, group.mask, False, group.angles, None, None, cache)
                cache.length = group.tokens.shape[1]
                groups[index] = group._replace(tokens=tokens)
                kept.append((group.rows, cache))
            self._kept.append(kept)
        states = groups[0].tokens.new_empty(batch, groups[0].tokens.shape[2])
        for group in groups:
            states[group.rows] = group.tokens[:, -1]
        self.logits = model.logits(model.language.transformer.norm(states))

    def _split(self, groups: list[_Group], rule: DropRule, layer: int, block, visual: int, length: int) -> list[_Group]:
        """Move the sequences for which the rule fires to the group that has no visual tokens."""
        whole = [group for group in groups if group.tokens.shape[1] == 1 + visual + length]
        if not whole:
            return groups
        (group,) = whole
        short = [other for other in groups if other is not group]
        layout = _layout(group.rows, visual, length)
        fired = rule.fires(block, group.tokens, group.mask, group.angles, layout)
        if not bool(fired.any()):
            return groups
        self.layers[group.rows[fired]] = layer
        text = torch.arange(1 + visual, 1 + visual + length, device=fired.device)
        left = torch.cat([text.new_zeros(1), text])
        gone = _taken(group, fired)
        parts = [
            *short,
            _Group(gone.rows, gone.tokens[:, left], gone.mask[:, :, left][..., left], gone.angles[..., left, :]),
        ]
        merged = _Group(
            torch.cat([part.rows for part in parts]),
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.mask for part in parts]),
            torch.cat([part.angles for part in parts], 1),
        )
        return [merged] if bool(fired.all()) else [_taken(group, ~fired), merged]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Decode one token of every sequence.

        Args:
            tokens: Word ids behind what came before, int64 (B,).

        Returns:
            Logits of the next token, (B, V).

        Raises:
            TransformerError: There are more than `steps` of them.
        """
        language = self._model.language
        hidden = language.embedding(tokens)[:, None]
        angles = language.angles[:, self._next : self._next + 1]
        for block, kept in zip(self._model.blocks, self._kept, strict=True):
            after = torch.empty_like(hidden)
            for rows, cache in kept:
                after[rows] = block(hidden[rows], None, False, angles, None, None, cache)
                cache.length += 1
            hidden = after
        self._next += 1
        return self._model.logits(language.transformer.norm(hidden[:, 0]))

    def cached_tokens(self) -> Tensor:
        """Return how many tokens each sequence keeps in each layer, int64 (B, L)."""
        counts = self.layers.new_empty(len(self.layers), len(self._kept))
        for layer, kept in enumerate(self._kept):
            for rows, cache in kept:
                counts[rows, layer] = cache.length
        return counts


def _taken(group: _Group, chosen: Tensor) -> _Group:
    return _Group(group.rows[chosen], group.tokens[chosen], group.mask[chosen], group.angles[:, chosen])


def _texts(question: Tensor) -> PackedBatch:
    """Return one question per sequence as a packed batch; what follows its last token is predicted."""
    batch, length = question.shape
    places = torch.arange(length, device=question.device).expand(batch, -1)
    at = torch.arange(1, batch + 1, device=question.device) * length - 1
    none = torch.zeros_like(at)
    return PackedBatch(question, torch.ones_like(question), places, at, none, none - 1)


def _layout(rows: Tensor, visual: int, length: int) -> Layout:
    """Return the layout of one question per sequence."""
    scene = torch.arange(len(rows), device=rows.device)
    last = torch.full((len(rows), 1), visual + length, device=rows.device)
    return Layout(visual, scene[:, None].expand(-1, length), scene, last, scene[:, None])
