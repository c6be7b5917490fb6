"""Prompt look-up: what followed the last tokens where they stood before is proposed again, as a chain.

Letters: T tokens of a text, N nodes of a chain, its root included.

Source: Saxena 2023, "Prompt Lookup Decoding".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from components.language.speculative.tree import DraftTree, chain


def continuation(context: np.ndarray, longest: int, count: int) -> np.ndarray:
    """Return what followed the text's end where it stood before.

    The longest n-gram counts, n from `longest` down to 1, and of several places the last.

    Args:
        context: Tokens, (T,).
        longest: Most tokens that are looked up.
        count: Most tokens that are returned.

    Returns:
        At most `count` tokens; none where not even the last token stood before.
    """
    same = context[:-1] == context[-1]  # ends of occurrences of the last n tokens, n growing
    found = np.flatnonzero(same)
    for back in range(1, longest):
        if back >= len(context):
            break
        further = found[(found >= back) & (context[np.maximum(found - back, 0)] == context[-1 - back])]
        if not len(further):
            break
        found = further
    return context[found[-1] + 1 :][:count] if len(found) else context[:0]


class PromptLookup:
    """Drafts a chain by looking up the text itself.

    Args:
        longest: Most tokens of an n-gram.
        depth: Most tokens of a draft.
        device: Where the model lies.
    """

    update_on_prefill = False

    def __init__(self, longest: int = 3, depth: int = 10, device: torch.device | str = "cpu") -> None:
        self.depth, self.nodes = depth, depth + 1
        self._longest = longest
        self._chains = [chain(length, device) for length in range(depth + 1)]

    def begin(self, tokens: Tensor, logits: Tensor | None) -> None:
        """Start a new text; nothing is kept from one to the next."""

    def draft(self, context: Sequence[int]) -> tuple[DraftTree, Tensor]:
        """Return a chain and its tokens, (N,), behind a text whose last token is the root."""
        found = continuation(np.asarray(context), self._longest, self.depth)
        tree = self._chains[len(found)]
        return tree, torch.tensor([context[-1], *found.tolist()], device=tree.device)

    def observe(self, tokens: Tensor, logits: Tensor) -> None:
        """Learn nothing: the text that is looked up grows by itself."""


def build(
    vocabulary_size: int, device: torch.device | str = "cpu", *, longest: int = 3, depth: int = 10
) -> PromptLookup:
    """Build the drafter; the size of the vocabulary does not matter to it."""
    return PromptLookup(longest, depth, device)
