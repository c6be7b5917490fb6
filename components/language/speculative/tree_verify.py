"""Verification of a draft tree: one forward pass over all nodes, then the longest path that the model agrees with.

    verified tokens, root r
      |-- tokens of the tree, mask [ones | ancestors], positions n + depth -- model -- logits of every node
      |-- chosen token of every node; a child is right iff it is what its parent chose
      '-- longest right path from the root: its choices are the new tokens, its keys and values stay in the cache

Letters: N nodes with the root, L levels below it, V tokens of the vocabulary, n tokens in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from components.language.speculative.choices import Choice
from components.language.speculative.tree import DraftTree
from components.nn.transformer import KeyValueCache

if TYPE_CHECKING:
    from components.language.causal_lm import CausalLM


@dataclass(frozen=True)
class Verified:
    """What one verification found.

    Attributes:
        nodes: Nodes of the longest right path, the root first: 1 + a of them.
        tokens: The new tokens: what each of these nodes chose. The first a of them are drafts that were right, the
            last is the model's own and not in the cache.
        logits: Logits of every node, (N, V).
    """

    nodes: list[int]
    tokens: list[int]
    logits: Tensor


def tree_logits(model: CausalLM, tree: DraftTree, tokens: Tensor, cache: KeyValueCache) -> Tensor:
    """Return the logits behind every node given the cached tokens and the path to it, (N, V), in one forward pass.

    A node stands at position n + depth and sees the n cached tokens, its ancestors and itself. The cache then holds
    n + N tokens.

    Args:
        model: The model.
        tree: The tree's shape, on the model's device.
        tokens: Token of every node, (N,) int64.
        cache: Keys and values of the tokens before the root.
    """
    past = cache.length
    return model(tokens[None], cache, places=tree.depths + past, mask=tree.mask(past))[0]


def longest_path(tree: DraftTree, tokens: Tensor, chosen: Tensor, independent: bool = False) -> Tensor:
    """Find the longest path from the root on which every child is what its parent chose; of several, the first.

    Args:
        tree: The tree's shape.
        tokens: Token of every node, (N,).
        chosen: Token that the model chooses behind every node, (N,).
        independent: Whether nodes with the same context may have chosen differently. A token that two siblings carry
            then counts for the first one only: picking the better of two draws would not keep the model's law.

    Returns:
        Nodes of the path behind the root's 0, padded with -1, (L + 1,) int64.
    """
    right = tokens == chosen[tree.parents]
    if independent:
        twins = (tree.parents[:, None] == tree.parents) & (tokens[:, None] == tokens)
        right &= ~twins.tril(-1)[:, 1:].any(1)  # the root, its own parent, is nobody's sibling
    right[0] = True
    matched = right[tree.leaves.clamp(min=0)] & (tree.leaves >= 0)
    matched = matched.cumprod(1)  # 1 as long as the path is right
    # Longest first, then first: argmax alone may return any of several largest.
    order = matched.sum(1) * len(matched) - torch.arange(len(matched), device=matched.device)
    best = order.argmax()
    return torch.where(matched[best].bool(), tree.leaves[best], -1)


@torch.no_grad()
def verify(model: CausalLM, tree: DraftTree, tokens: Tensor, cache: KeyValueCache, choose: Choice) -> Verified:
    """Verify a draft tree and bring the cache to where decoding goes on.

    Args:
        model: The model.
        tree: The tree's shape, on the model's device.
        tokens: Token of every node, (N,) int64; the root's is the last known token, which is not in the cache.
        cache: Keys and values of the tokens before the root. Afterwards it also holds those of the path that was right.
        choose: How the model chooses tokens.

    Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding" (draft and verify);
        Miao et al. 2024, "SpecInfer", section 4 (trees).
    """
    past = cache.length
    logits = tree_logits(model, tree, tokens, cache)
    chosen = choose(logits, tree.depths + past).argmax(-1)
    path = longest_path(tree, tokens, chosen, choose.independent)
    # The one place where the host waits for the device.
    nodes, new = torch.stack([path, chosen[path.clamp(min=0)]]).tolist()
    nodes = [node for node in nodes if node >= 0]
    keep_path(cache, past, nodes, tree.device)
    return Verified(nodes, new[: len(nodes)], logits)


def keep_path(cache: KeyValueCache, past: int, nodes: list[int], device: torch.device) -> None:
    """Compact a cache after a verification: the `past` tokens before the tree stay, and of the tree these nodes."""
    if nodes == list(range(len(nodes))):  # they already lie where they belong
        cache.truncate(past + len(nodes))
    else:
        cache.keep(torch.tensor(nodes, device=device) + past, after=past)
