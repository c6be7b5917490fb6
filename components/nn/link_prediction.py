"""Scores of triples (head, relation, tail) from embeddings, for predicting links of a graph.

Letters: `B` queries, `N` nodes, `R` relation types, `D` width of an embedding, an even number.

Source: Trouillon et al. 2016 (ComplEx).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import TesseraError


class ComplexDecoder(nn.Module):
    """score(h, r, t) = Re(sum_i h_i w_ri conj(t_i)), embeddings read as D / 2 complex numbers.

    DistMult without the imaginary parts, which let score(h, r, t) differ from score(t, r, h): imports have a direction.
    The real parts are the first half of an embedding. Relations start at 1, so that what scores a pair at first is how
    alike its nodes are.

    Args:
        relation_types: R.
        width: D.
    """

    def __init__(self, relation_types: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise TesseraError(f"ComplexDecoder(width={width}): expected an even width, half real and half imaginary.")
        self.relations = nn.Parameter(torch.cat([torch.ones(relation_types, width // 2),
                                                 0.1 * torch.randn(relation_types, width // 2)], 1))  # fmt: skip

    def forward(self, heads: Tensor, relations: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores (B, N) of every candidate as the tail.

        Args:
            heads: Embeddings (B, D).
            relations: int64 (B,).
            candidates: Embeddings (N, D).
        """
        (head_real, head_imaginary), (real, imaginary) = heads.chunk(2, 1), self.relations[relations].chunk(2, 1)
        query = torch.cat(
            [head_real * real - head_imaginary * imaginary, head_real * imaginary + head_imaginary * real], 1
        )
        return query @ candidates.t()


class LinkPredictor(nn.Module):
    """Embeddings of all nodes, and scores of each as the tail of a query.

    Args:
        encoder: Embeds nodes: called without arguments it returns (N, D).
        relation_types: Relation types, those that stand for the inverse of another included.
        width: D.
    """

    def __init__(self, encoder: nn.Module, *, relation_types: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = ComplexDecoder(relation_types, width)

    def forward(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Return the scores (B, N) of every node as the tail, of heads (B,) and relations (B,), int64."""
        embeddings = self.encoder()
        return self.decoder(embeddings[heads], relations, embeddings)


# A description of a model (components.bases) names this module.
build = LinkPredictor
