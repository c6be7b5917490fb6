"""A trained vision transformer that reads fewer tokens behind each of its blocks' attention, without retraining.

    x -- norm -- attention, log sizes added to the scores --(+)-- reduce -- norm -- MLP --(+)-- next block

The metric of the tokens is the keys of the same attention, averaged over heads. The class token, at index 0, is set
aside: it is neither scored nor merged. Blocks are those of `components.nn.transformer`, run piece by piece.

Letters: `B` images, `P` patches, `N` tokens of a block without the class token, `n` those that remain in the end, `D`
width, `C` channels of a head.

Sources: Bolya et al. 2023 (ToMe), section 3 (placement, keys, proportional attention); Tran et al. 2024 (PiToMe).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.compression.merging.plan import (
    Depth,
    MergeError,
    MergePlan,
    Reducer,
    behind_class_token,
    groups,
    log_sizes,
    merged,
    to_remove,
)
from components.nn.transformer import Block


class Encoder(Protocol):
    """What can be reduced: `components.nn.vit.PatchViT`, `components.nn.conv_stem_vit.ConvStemViT`."""

    blocks: nn.ModuleList
    norm: nn.Module

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, 1 + P, D) that the first block reads, the class token first."""
        ...


class Step(NamedTuple):
    """What happened in one block.

    Attributes:
        metric: What the plan was made from, (B, N, C).
        plan: The plan, without the class token.
    """

    metric: Tensor
    plan: MergePlan


class Reduced(NamedTuple):
    """Tokens behind the last block that ran, not normalised.

    Attributes:
        tokens: (B, 1 + n, D), the class token first.
        sizes: Original tokens that each stands for, (B, 1 + n); None where nothing was reduced.
        steps: One per block that reduced.
    """

    tokens: Tensor
    sizes: Tensor | None
    steps: tuple[Step, ...]

    def groups(self, patches: int) -> Tensor:
        """Return which of the n tokens each patch is part of, int64 (B, P); -1 where it was dropped."""
        if not self.steps:
            return torch.arange(patches, device=self.tokens.device).expand(len(self.tokens), -1)
        return groups([step.plan for step in self.steps])

    def places(self, patches: int) -> Tensor:
        """Return the patch that each of the n tokens has grown from, int64 (B, n)."""
        places = torch.arange(patches, device=self.tokens.device).expand(len(self.tokens), -1)
        for step in self.steps:
            places = places.gather(1, step.plan.kept)
        return places


def reduced(
    encoder: Encoder,
    images: Tensor,
    reducer: Reducer | None,
    ratios: Sequence[float],
    *,
    generator: torch.Generator | None = None,
) -> Reduced:
    """Run the first blocks of an encoder, one per ratio, and reduce the tokens in each.

    Args:
        encoder: In evaluation mode.
        images: What the encoder's `embed` reads, (B, 3, H, W).
        reducer: The method; None where every ratio is 1.
        ratios: Share of its tokens that each block keeps; with 1 the block is the ordinary one, bit by bit.
        generator: For methods that draw.

    Raises:
        MergeError: There are more ratios than blocks, a ratio is not in [0.5, 1], or there is no method.
    """
    blocks = encoder.blocks
    if len(ratios) > len(blocks):
        raise MergeError(f"{len(ratios)} ratios were given for {len(blocks)} blocks; give one for each, or fewer.")
    tokens, sizes, steps = encoder.embed(images), None, []
    for layer, (block, ratio) in enumerate(zip(blocks, ratios, strict=False)):
        count = to_remove(tokens.shape[1] - 1, ratio)
        tokens, keys, queries = _attend(block, tokens, sizes)
        if count:
            if reducer is None:
                raise MergeError(f"block {layer} is to keep {ratio:g} of its tokens, but no method was given.")
            attention = _class_attention(queries, keys, sizes) if reducer.needs_attention else None
            metric = keys[:, :, 1:].mean(1)
            plan = reducer.plan(metric, count, Depth(layer, len(blocks), attention, generator))
            steps.append(Step(metric, plan))
            tokens, sizes = merged(behind_class_token(plan), tokens, sizes)
        tokens = tokens + block.dropout(block.mlp(block.mlp_norm(tokens)))
    return Reduced(tokens, sizes, tuple(steps))


def _attend(block: Block, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens behind the attention, its keys and its queries (B, heads, 1 + N, C)."""
    normed = block.attention_norm(tokens)
    queries = block.attention.queries(normed)
    keys, values = block.attention.project(normed)
    bias = None if sizes is None else log_sizes(sizes).to(queries.dtype)
    return tokens + block.dropout(block.attention(queries, keys, values, bias, False)), keys, queries


def _class_attention(queries: Tensor, keys: Tensor, sizes: Tensor | None) -> Tensor:
    """Return what the class token pays to each other token, averaged over heads, (B, N)."""
    scores = queries[:, :, :1] @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
    if sizes is not None:
        scores = scores + log_sizes(sizes)
    return scores.softmax(-1).mean((1, 2))[:, 1:]
