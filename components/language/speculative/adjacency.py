"""Token Recycling's drafts: the k likeliest successors that a token had when the model last evaluated it.

One table M (V, k) for all contexts. It fills a draft tree level by level, and the top k of every node that is
verified, accepted or not, goes back into it.

Letters: V tokens of the vocabulary, k candidates a token, N nodes of a tree.

Source: Luo et al. 2024, "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token
    Recycling".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.speculative.tree import DraftTree, chain, recycling_tree


class AdjacencyError(TesseraError):
    """A matrix of successors cannot serve a tree."""


class AdjacencyMatrix:
    """Successors of every token, all 0 at first, so that unknown rows draft token 0.

    Args:
        vocabulary_size: V.
        k: Candidates of a token.
        device: Where it lies.

    Attributes:
        table: The matrix, (V, k) int32, candidates in descending order.
        touched: Rows that were ever written by `update`, (V,) boolean.
        writes: Rows written by `update` so far, a token that stands in a tree twice counted once; a scalar tensor.
    """

    def __init__(self, vocabulary_size: int, k: int = 8, device: torch.device | str = "cpu") -> None:
        # 32-bit ids: 32,000 x 8 of them are 1.02 MB, 64-bit ones would be twice that.
        self.table = torch.zeros(vocabulary_size, k, dtype=torch.int32, device=device)
        self.touched = torch.zeros(vocabulary_size, dtype=torch.bool, device=device)
        self.writes = torch.zeros((), dtype=torch.int64, device=device)

    @classmethod
    def of(cls, table: Tensor) -> AdjacencyMatrix:
        """Start from given successors, (V, k); they are copied."""
        matrix = cls(*table.shape, table.device)
        matrix.table.copy_(table)
        return matrix

    @property
    def k(self) -> int:
        """Candidates of a token."""
        return self.table.shape[1]

    @property
    def bytes(self) -> int:
        """Memory of the matrix."""
        return self.table.numel() * self.table.element_size()

    def update(self, tokens: Tensor, logits: Tensor) -> None:
        """Write the top k behind every token: `M[token_u] = top-k ids of z_u` in descending order.

        Where a token occurs twice, the later one counts: in breadth-first order of a tree the deeper node.

        Args:
            tokens: Tokens, (N,) int64.
            logits: Logits behind them, (N, V).
        """
        best = logits.topk(self.k).indices.to(torch.int32)
        order = torch.arange(len(tokens), device=tokens.device)
        latest = torch.where(tokens[:, None] == tokens, order, -1).amax(1)
        # Every copy of a token writes the same row, so the order in which a device writes does not matter.
        self.table[tokens] = best[latest]
        self.touched[tokens] = True
        self.writes += (latest == order).sum()


class Recycler:
    """Drafts a tree from an adjacency matrix and keeps the matrix fresh.

    Args:
        matrix: The matrix at the start; it is changed in place where `refresh` is set.
        tree: The tree's shape; its candidates are below the matrix's k.
        refresh: Whether verified trees are written back.
        keep: Whether the matrix lives on from prompt to prompt (hot) or starts anew with each (cold).
        update_on_prefill: Whether the prompt's own logits are written, too (the released code does not).

    Raises:
        AdjacencyError: The tree asks for candidates that the matrix does not have.
    """

    def __init__(
        self,
        matrix: AdjacencyMatrix,
        tree: DraftTree,
        *,
        refresh: bool = True,
        keep: bool = True,
        update_on_prefill: bool = False,
    ) -> None:
        if (most := int(tree.candidates.max())) >= matrix.k:
            raise AdjacencyError(
                f"The tree uses candidate {most}, the matrix has {matrix.k} a token; cut the tree with tree.below(k)."
            )
        self.matrix = matrix
        self.update_on_prefill = update_on_prefill
        self.depth, self.nodes = tree.depth, tree.nodes
        self._tree, self._refresh = tree, refresh
        self._start = None if keep else matrix.table.clone()

    def begin(self, tokens: Tensor, logits: Tensor | None) -> None:
        """Start a new text.

        Args:
            tokens: Its tokens in the cache, (T,); the start token is none.
            logits: Logits behind them, (T, V); only looked at where `update_on_prefill` is set.
        """
        if self._start is not None:
            self.matrix.table.copy_(self._start)
        if self.update_on_prefill and len(tokens):
            self.matrix.update(tokens, logits)

    def draft(self, context: Sequence[int]) -> tuple[DraftTree, Tensor]:
        """Return the tree and its tokens, (N,), behind a text whose last token is the root."""
        return self._tree, self._tree.fill(self.matrix.table, context[-1])

    def observe(self, tokens: Tensor, logits: Tensor) -> None:
        """Learn from a verified tree: its tokens (N,) and the logits behind them (N, V)."""
        if self._refresh:
            self.matrix.update(tokens, logits)


def build(
    vocabulary_size: int,
    device: torch.device | str = "cpu",
    *,
    k: int = 8,
    drafts: int = 80,
    branching: bool = True,
    start: Tensor | None = None,
    refresh: bool = True,
    keep: bool = True,
    update_on_prefill: bool = False,
) -> Recycler:
    """Build the method or one of its ablations.

    Args:
        vocabulary_size: V.
        device: Where the model lies.
        k: Candidates of a token; the tree is cut to those.
        drafts: Nodes of the released tree that are used, the first of them in breadth-first order.
        branching: False keeps only the chain of first candidates, as deep as the tree.
        start: Successors to start from, (V, k); all 0 by default.
        refresh: Whether verified trees are written back.
        keep: Whether the matrix lives on from prompt to prompt.
        update_on_prefill: Whether the prompt's own logits are written, too.

    Raises:
        AdjacencyError: The successors to start from have another shape than (V, k).
    """
    if start is not None and start.shape != (vocabulary_size, k):
        raise AdjacencyError(f"The successors to start from are {tuple(start.shape)}, expected {(vocabulary_size, k)}.")
    tree = recycling_tree(device).first(drafts).below(k)
    tree = tree if branching else chain(tree.depth, device)
    matrix = AdjacencyMatrix(vocabulary_size, k, device) if start is None else AdjacencyMatrix.of(start.to(device))
    return Recycler(matrix, tree, refresh=refresh, keep=keep, update_on_prefill=update_on_prefill)
