"""No drafts: a tree of the root alone, which makes speculative decoding plain decoding, one token a forward pass.

Letters: N nodes, here 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.language.speculative.tree import DraftTree, chain


class Undrafted:
    """Proposes nothing.

    Args:
        device: Where the model lies.
    """

    update_on_prefill = False
    depth, nodes = 0, 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._tree = chain(0, device)

    def begin(self, tokens: Tensor, logits: Tensor | None) -> None:
        """Start a new text."""

    def draft(self, context: Sequence[int]) -> tuple[DraftTree, Tensor]:
        """Return the root alone."""
        return self._tree, torch.tensor([context[-1]], device=self._tree.device)

    def observe(self, tokens: Tensor, logits: Tensor) -> None:
        """Learn nothing."""


def build(vocabulary_size: int, device: torch.device | str = "cpu") -> Undrafted:
    """Build the drafter; the size of the vocabulary does not matter to it."""
    return Undrafted(device)
