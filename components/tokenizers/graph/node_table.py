"""A table with one row per node: what embeddings of graphs are without tokens.

Letters: `N` nodes, `B` nodes embedded, `D` width of an embedding.
"""

from __future__ import annotations

from torch import Tensor, nn

_DEVIATION = 0.1  # small beside what training moves: links are first scored by chance, not by the start


class NodeTable(nn.Module):
    """h_v = row v.

    Args:
        nodes: N.
        width: D.

    Attributes:
        vocabulary: N.
    """

    def __init__(self, *, nodes: int, width: int) -> None:
        super().__init__()
        self.vocabulary = nodes
        self.rows = nn.Embedding(nodes, width)
        nn.init.normal_(self.rows.weight, std=_DEVIATION)

    def forward(self, nodes: Tensor | None = None) -> Tensor:
        """Return embeddings (B, D) of nodes (B,), or (N, D) of all."""
        return self.rows.weight if nodes is None else self.rows(nodes)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = NodeTable
