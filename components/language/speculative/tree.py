"""Draft trees of a fixed shape: which places of a vocabulary-wide guess are verified together in one forward pass.

A path (0, 2, 1) names a node: the root's candidate 0, then that token's candidate 2, then that token's candidate 1.

Letters: N nodes with the root, which is node 0; L levels below the root; P leaves; S tokens already verified.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from components.errors import TesseraError

Path = tuple[int, ...]


class TreeError(TesseraError):
    """A set of paths is no tree."""


class DraftTree:
    """A tree of draft tokens, its nodes in breadth-first order, so that a parent stands before its children.

    Args:
        paths: Paths of all nodes but the root, in any order.
        device: Where the tensors lie.

    Attributes:
        paths: Path of every node in breadth-first order, the root's () first.
        parents: Parent of every node, (N,) int64; the root's is itself.
        candidates: Last index of every node's path, (N,) int64; 0 for the root.
        depths: Length of every node's path, (N,) int64.
        ancestors: True where column v is row u itself or an ancestor of it, (N, N) boolean.
        leaves: Nodes from the root to each leaf, (P, L + 1) int64, padded with -1.
        levels: The nodes of each level below the root, as slices.

    Raises:
        TreeError: A path occurs twice or its parent is missing.

    Source: Luo et al. 2024, "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token
        Recycling" (the static tree); Miao et al. 2024, "SpecInfer" (tree attention).
    """

    def __init__(self, paths: Iterable[Path], device: torch.device | str = "cpu") -> None:
        self.paths = ((), *sorted((tuple(path) for path in paths), key=lambda path: (len(path), path)))
        number = {path: node for node, path in enumerate(self.paths)}
        if len(number) < len(self.paths):
            raise TreeError(f"A path occurs twice in {self.paths[1:]}; give each node once.")
        if orphans := [path for path in self.paths[1:] if path[:-1] not in number]:
            raise TreeError(f"The parents of {orphans[:4]} are missing; a tree holds every beginning of its paths.")
        trails = [[number[path[:length]] for length in range(len(path) + 1)] for path in self.paths]
        inner = {path[:-1] for path in self.paths[1:]}
        self.nodes = len(self.paths)
        self.depth = len(self.paths[-1])
        self.device = torch.device(device)
        self.parents = self._tensor([trail[-2] if len(trail) > 1 else 0 for trail in trails])
        self.candidates = self._tensor([path[-1] if path else 0 for path in self.paths])
        self.depths = self._tensor([len(path) for path in self.paths])
        self.ancestors = torch.zeros(self.nodes, self.nodes, dtype=torch.bool, device=device)
        for node, trail in enumerate(trails):
            self.ancestors[node, trail] = True
        leaves = [trail for path, trail in zip(self.paths, trails, strict=True) if path not in inner]
        self.leaves = self._tensor([[*trail, *[-1] * (self.depth + 1 - len(trail))] for trail in leaves])
        sizes = [len(list(group)) for _, group in itertools.groupby(self.paths, key=len)]
        ends = list(itertools.accumulate(sizes))
        self.levels = tuple(itertools.starmap(slice, itertools.pairwise(ends)))
        self._allowed = self.ancestors

    def _tensor(self, values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def to(self, device: torch.device | str) -> DraftTree:
        """Return the tree with its tensors on another device."""
        return DraftTree(self.paths[1:], device)

    def first(self, drafts: int) -> DraftTree:
        """Return the tree of the first `drafts` nodes behind the root."""
        return DraftTree(self.paths[1 : drafts + 1], self.device)

    def below(self, k: int) -> DraftTree:
        """Return the tree of the paths that use candidates below k only."""
        return DraftTree([path for path in self.paths[1:] if max(path) < k], self.device)

    def fill(self, table: Tensor, root: int) -> Tensor:
        """Grow the tree from a table of successors, level by level: token[u] = table[token[parent(u)], candidate(u)].

        Args:
            table: Successors of each token, (V, k) of any integer type.
            root: Token at the root.

        Returns:
            Token of every node, (N,) int64.
        """
        tokens = torch.empty(self.nodes, dtype=torch.int64, device=self.device)
        tokens[0] = root
        for level in self.levels:
            tokens[level] = table[tokens[self.parents[level]], self.candidates[level]].long()
        return tokens

    def mask(self, past: int) -> Tensor:
        """Return who may attend to whom behind `past` verified tokens: [all of them | ancestors], (N, past + N).

        A view of a mask that is kept, and that is made longer when needed.
        """
        room = self._allowed.shape[1] - self.nodes
        if past > room:
            shape = (self.nodes, max(past, 2 * room))
            self._allowed = torch.cat([torch.ones(shape, dtype=torch.bool, device=self.device), self.ancestors], dim=1)
            room = shape[1]
        return self._allowed[:, room - past :]


def chain(length: int, device: torch.device | str = "cpu") -> DraftTree:
    """Return the tree without branches: 0, 00, 000, ... down to `length` drafts; the root alone for 0."""
    return DraftTree([(0,) * depth for depth in range(1, length + 1)], device)


def from_children(children: Mapping[Path, int], device: torch.device | str = "cpu") -> DraftTree:
    """Return the tree in which each node that is named has its first so many candidates as children."""
    return DraftTree([(*path, index) for path, count in children.items() for index in range(count)], device)


_CHILDREN: dict[Path, int] = {
    (): 8,
    **{(0,): 8, (1,): 4, (2,): 3, (3,): 2, (4,): 1, (5,): 1, (6,): 1, (7,): 1},
    **{(0, 0): 8, (0, 1): 3, (0, 2): 2, (0, 3): 1, (0, 4): 1, (0, 5): 1, (0, 6): 1, (0, 7): 1},
    **{(1, 0): 2, (1, 1): 1, (2, 0): 1, (3, 0): 1, (4, 0): 1, (5, 0): 1},
    **{(0, 0, 0): 5, (0, 0, 1): 2, (0, 0, 2): 1, (0, 0, 3): 1, (0, 0, 4): 1},
    **{(0, 1, 0): 1, (0, 2, 0): 1, (1, 0, 0): 1, (2, 0, 0): 1, (3, 0, 0): 1},
    **{(0, 0, 0, 0): 3, (0, 0, 0, 1): 1, (0, 0, 0, 2): 1, (0, 0, 1, 0): 1, (0, 1, 0, 0): 1, (1, 0, 0, 0): 1},
    **{(0, 0, 0, 0, 0): 2, (0, 0, 0, 1, 0): 1},
}


def recycling_tree(device: torch.device | str = "cpu") -> DraftTree:
    """Return Token Recycling's tree: 80 drafts, 8, 21, 25, 15, 8 and 3 by level, more of them below low candidates.

    Source: the released tree template (version 2.2.2) of Luo et al. 2024.
    """
    return from_children(_CHILDREN, device)
