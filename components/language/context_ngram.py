"""Drafts from the text itself: what followed a token where it stands in this very text.

    q(y | left neighbour c) = n(c, y) / n(c, .)     counts over neighbours that are both known
    q(y)                    = n(y) / n(.)           where c is not known or nothing is known to follow it
    q(y)                    = 1 / V                 where nothing is known

A draft may condition on the draft before it; only tokens that are decided are counted.

Letters: A texts, N tokens of a text, k drafts, V tokens of the vocabulary.

Source: Guo and Ermon 2025, "Reviving Any-Subset Autoregressive Models with Principled Parallel Sampling and Speculative
Decoding" (n-gram drafts from the context).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.language.any_order import Order
from components.language.speculative.rejection import draw


class ContextBigram:
    """A drafter of `components.language.speculative.any_subset` that asks no network.

    Args:
        vocabulary_size: V.
    """

    calls, exact = 0, False

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size

    def draft(
        self, tokens: Tensor, order: Order, progress: Tensor, queries: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return drafts (A, k), one after the other, and what each was drawn from, (A, k, V)."""
        decided = order.ranks < progress[:, None]
        neighbours = decided[:, :-1] & decided[:, 1:]
        # Tokens are counted with weight 0 where they are not known, whatever the mask's id is.
        ids = tokens.clamp(max=self._size - 1)
        single = self._counted(ids, decided)
        known, text, drafts, laws = decided.clone(), ids.clone(), [], []
        for position in queries.T:
            left = (position - 1).clamp(min=0)[:, None]
            before = text.gather(1, left)
            reads = known.gather(1, left) & (position > 0)[:, None]
            pairs = self._counted(ids[:, 1:], neighbours & (ids[:, :-1] == before) & reads)
            law = _share(torch.where(pairs.sum(1, keepdim=True) > 0, pairs, single))
            drafts.append(draw(law, generator))
            laws.append(law)
            text.scatter_(1, position[:, None], drafts[-1][:, None])
            known.scatter_(1, position[:, None], True)
        return torch.stack(drafts, 1), torch.stack(laws, 1)

    def _counted(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Count tokens of each text, (A, N) to float32 (A, V)."""
        counts = torch.zeros(len(ids), self._size, device=ids.device)
        return counts.scatter_add_(1, ids, weights.float())


def _share(counts: Tensor) -> Tensor:
    """Return counts as shares, equal ones where there is nothing to count."""
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), 1 / counts.shape[1])
