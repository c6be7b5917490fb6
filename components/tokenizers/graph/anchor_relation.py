"""Anchor-relation tokens of a graph's nodes: a vocabulary of anchors and relation types instead of one of all nodes.

    node -- its k nearest anchors, each with a distance; m of the relation types at it -- set encoder -- embedding

Letters: `N` nodes, `E` edges, `R` relation types, `A` anchors, `k` anchors of a node, `m` relation types of a node,
`B` nodes encoded, `D` width of an embedding.

Source: Galkin et al. 2022 (NodePiece), section 3: tokenization, anchors by degree, PageRank and chance, encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError

_DAMPING = 0.85
_POWER_ITERATIONS = 50
_PRIME_1, _PRIME_2 = 0x27D4EB2F165667C5, 0x165667B19E3779F9
_SHIFT = 29


class AnchorRelationError(TesseraError):
    """A graph, its anchors or the sizes of its tokens do not fit together."""


class NodeTokens(NamedTuple):
    """The tokens of every node.

    Attributes:
        anchors: Places in the list of anchors, nearest first, int64 (N, k); A where fewer than k can be reached.
        distances: Edges to them, int64 (N, k); 0 where there is no anchor.
        relations: Relation types at the node, int64 (N, m): r for an edge that leaves it, R + r for one that arrives;
            2 R where there are fewer than m.
    """

    anchors: Tensor
    distances: Tensor
    relations: Tensor


def choose_anchors(
    heads: Tensor, tails: Tensor, nodes: int, count: int, shares: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Choose anchors by degree, by PageRank and at random, in these shares; int64 (A,), all different.

    Nodes that an earlier share took are passed over. Of equal nodes the first wins. Both orders are of the graph
    without directions.

    Args:
        heads: int64 (E,).
        tails: int64 (E,).
        nodes: N.
        count: A.
        shares: Share of degree, of PageRank and of chance, adding up to 1.
        generator: Source of the random share.

    Raises:
        AnchorRelationError: There are fewer nodes than anchors, or the shares are no shares.
    """
    if not 1 <= count <= nodes:
        raise AnchorRelationError(f"{count} anchors were asked of {nodes} nodes; expected 1 to {nodes}.")
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise AnchorRelationError(f"shares {list(shares)}; expected three of at least 0 that add up to 1.")
    one, other = torch.cat([heads, tails]), torch.cat([tails, heads])
    degree = torch.bincount(one, minlength=nodes).double()
    orders = (degree, page_rank(one, other, nodes), torch.rand(nodes, generator=generator, dtype=torch.float64))
    upto = [round(count * sum(shares[: place + 1])) for place in range(3)]
    taken = torch.zeros(nodes, dtype=torch.bool)
    chosen = []
    for scores, end in zip(orders, upto, strict=True):
        order = torch.where(taken, -torch.inf, scores).argsort(descending=True, stable=True)
        chosen.append(order[: end - int(taken.sum())])
        taken[chosen[-1]] = True
    return torch.cat(chosen)


def page_rank(sources: Tensor, targets: Tensor, nodes: int) -> Tensor:
    """Return the PageRank of every node, float64 (N,), by power iteration.

        p_t <- 0.85 (sum over edges s -> t of p_s / degree_s + sum over s without edges of p_s / N) + 0.15 / N

    Source: Brin and Page 1998.
    """
    degree = torch.bincount(sources, minlength=nodes).double()
    rank = torch.full((nodes,), 1 / nodes, dtype=torch.float64)
    for _ in range(_POWER_ITERATIONS):
        flow = (rank / degree.clamp(min=1))[sources]
        received = torch.zeros(nodes, dtype=torch.float64).index_add_(0, targets, flow)
        rank = _DAMPING * (received + rank[degree == 0].sum() / nodes) + (1 - _DAMPING) / nodes
    return rank


def hop_distances(heads: Tensor, tails: Tensor, nodes: int, starts: Tensor) -> Tensor:
    """Return the number of edges from each start to every node, int64 (A, N), -1 where no path leads.

    Breadth-first search from all starts at once, whichever way the edges point.

    Args:
        heads: int64 (E,).
        tails: int64 (E,).
        nodes: N.
        starts: int64 (A,).
    """
    one, other = torch.cat([heads, tails]), torch.cat([tails, heads])
    distances = torch.full((len(starts), nodes), -1, dtype=torch.int64)
    frontier = torch.zeros(len(starts), nodes, dtype=torch.bool)
    frontier[torch.arange(len(starts)), starts] = True
    hops = 0
    while frontier.any():
        distances[frontier] = hops
        reached = torch.zeros(len(starts), nodes, dtype=torch.int32)
        reached.index_add_(1, other, frontier[:, one].int())
        frontier = (reached > 0) & (distances < 0)
        hops += 1
    return distances


def tokenize(
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    *,
    nodes: int,
    relation_types: int,
    anchors: Tensor,
    nearest: int,
    sampled_relations: int,
    seed: int,
) -> NodeTokens:
    """Give every node its tokens.

    Of anchors equally far away, those earlier in the list come first. Relation types are sampled by a hash of the
    node's anchors and distances, the type and the seed, so that tokens depend on the graph and the list of anchors
    alone: other names of the nodes permute the rows and change nothing else.

    Args:
        heads: int64 (E,).
        relations: int64 (E,).
        tails: int64 (E,).
        nodes: N.
        relation_types: R.
        anchors: int64 (A,).
        nearest: k.
        sampled_relations: m.
        seed: Of the sampling of relation types.

    Raises:
        AnchorRelationError: More anchors are asked for than there are, or no relation type at all.
    """
    if not 1 <= nearest <= len(anchors) or sampled_relations < 1:
        raise AnchorRelationError(
            f"nearest={nearest} of {len(anchors)} anchors and sampled_relations={sampled_relations}; expected 1 to "
            f"{len(anchors)}, and at least 1."
        )
    distances = hop_distances(heads, tails, nodes, anchors).t()
    far = torch.where(distances < 0, nodes, distances)
    # One number per anchor that orders by distance, then by place in the list.
    order = far * len(anchors) + torch.arange(len(anchors))
    places = order.topk(nearest, largest=False).indices
    found = distances.gather(1, places)
    missing = found < 0
    chosen, hops = places.masked_fill(missing, len(anchors)), found.masked_fill(missing, 0)

    present = torch.zeros(nodes, 2 * relation_types, dtype=torch.bool)
    present[heads, relations] = True
    present[tails, relations + relation_types] = True
    context = torch.stack([chosen, hops], 2).flatten(1)
    keys = _mixed(torch.cat([context, torch.full((nodes, 1), seed)], 1))
    types = torch.arange(2 * relation_types)
    priority = _mixed(torch.stack(torch.broadcast_tensors(keys.unsqueeze(1), types), 2))
    priority = priority.masked_fill(~present, torch.iinfo(torch.int64).max)
    kept = min(sampled_relations, 2 * relation_types)
    sampled = priority.topk(kept, dim=1, largest=False).indices
    sampled = sampled.masked_fill(~present.gather(1, sampled), 2 * relation_types).sort(1).values
    sampled = F.pad(sampled, (0, sampled_relations - kept), value=2 * relation_types)
    return NodeTokens(chosen, hops, sampled)


def node_hashes(tokens: NodeTokens) -> Tensor:
    """Return one number per node, int64 (N,), equal for nodes with equal tokens and hardly ever for others."""
    return _mixed(torch.cat(list(tokens), 1))


def _mixed(numbers: Tensor) -> Tensor:
    """Mix the last axis of int64 numbers (..., n) into one non-negative number (...), depending on their order."""
    state = torch.zeros_like(numbers[..., 0])
    for number in numbers.unbind(-1):
        # Multiplications wrap around; the shift carries high bits down, where the next one spreads them again.
        state = (state ^ number) * _PRIME_1 + _PRIME_2
        state = state ^ ((state >> _SHIFT) & ((1 << (64 - _SHIFT)) - 1))
    return (state * _PRIME_1) & torch.iinfo(torch.int64).max


class AnchorRelationEncoder(nn.Module):
    """Embeddings of nodes from the sets of their tokens.

        h_v = MLP([mean over anchors of gelu(a_i + d_i); mean over relation types of gelu(r_j)])

    with an embedding a of every anchor, d of every distance, r of every relation type and its inverse. A mean over an
    empty set is 0. The number of parameters does not depend on N.

    Args:
        nodes: N.
        relation_types: R.
        width: D.
        anchors: A.
        nearest: k.
        sampled_relations: m.
        farthest: Distances above this share an embedding.

    Attributes:
        vocabulary: Rows of its tables: anchors, distances, relation types and their inverses.
    """

    def __init__(
        self,
        *,
        nodes: int,
        relation_types: int,
        width: int,
        anchors: int,
        nearest: int,
        sampled_relations: int,
        farthest: int = 8,
    ) -> None:
        super().__init__()
        self.farthest = farthest
        self.vocabulary = anchors + farthest + 1 + 2 * relation_types
        self.anchor = nn.Embedding(anchors + 1, width, padding_idx=anchors)
        self.distance = nn.Embedding(farthest + 1, width)
        self.relation = nn.Embedding(2 * relation_types + 1, width, padding_idx=2 * relation_types)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        # Tokens are the graph's, not learned; they travel with the weights, so that a saved encoder needs no graph.
        self.register_buffer("anchors_of", torch.full((nodes, nearest), anchors))
        self.register_buffer("distances_of", torch.zeros(nodes, nearest, dtype=torch.int64))
        self.register_buffer("relations_of", torch.full((nodes, sampled_relations), 2 * relation_types))

    def take(self, tokens: NodeTokens) -> None:
        """Take the tokens of the nodes that are to be embedded."""
        self.anchors_of.copy_(tokens.anchors)
        self.distances_of.copy_(tokens.distances.clamp(max=self.farthest))
        self.relations_of.copy_(tokens.relations)

    def forward(self, nodes: Tensor | None = None) -> Tensor:
        """Return embeddings (B, D) of nodes (B,), or (N, D) of all."""
        anchors, distances, relations = self.anchors_of, self.distances_of, self.relations_of
        if nodes is not None:
            anchors, distances, relations = anchors[nodes], distances[nodes], relations[nodes]
        near = _set_mean(self.anchor(anchors) + self.distance(distances), anchors != self.anchor.padding_idx)
        types = _set_mean(self.relation(relations), relations != self.relation.padding_idx)
        return self.mix(torch.cat([near, types], 1))


def _set_mean(members: Tensor, present: Tensor) -> Tensor:
    """Return the mean over the present members of gelu(members), (B, D), of (B, n, D) and (B, n)."""
    weights = present.to(members.dtype) / present.sum(1, keepdim=True).clamp(min=1)
    return (F.gelu(members) * weights.unsqueeze(2)).sum(1)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = AnchorRelationEncoder
