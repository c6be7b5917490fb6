"""The shape of a graph of stages, whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Node:
    """One stage of the graph.

    Attributes:
        address: DVC's address, relative to the repository root ("params/x/dvc.yaml:train", "code").
        command: The command line that stands in dvc.yaml.
        directory: Directory the command runs in.
        upstream: Addresses of the stages whose outputs it reads; none for a frozen stage, as in DVC.
        outputs: Absolute output paths.
        frozen: DVC never runs it by itself.
        resources: The `meta:` mapping of its declaration.
    """

    address: str
    command: str
    directory: Path
    upstream: tuple[str, ...]
    outputs: tuple[Path, ...]
    frozen: bool
    resources: Mapping[str, Any] = field(default_factory=dict)


def with_upstream(nodes: Mapping[str, Node], wanted: Iterable[str]) -> list[str]:
    """Return the wanted stages with everything above them, each after what it depends on."""
    order: list[str] = []
    seen: set[str] = set()
    for start in wanted:
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            address, finished = stack.pop()
            if finished:
                order.append(address)
            elif address not in seen:
                seen.add(address)
                stack.append((address, True))
                stack.extend((above, False) for above in reversed(nodes[address].upstream))
    return order


def downstream(nodes: Mapping[str, Node], address: str, within: Iterable[str]) -> list[str]:
    """Return the stages of `within` (in dependency order) that depend on `address`, directly or not."""
    found = [address]
    for candidate in within:
        if candidate != address and set(found).intersection(nodes[candidate].upstream):
            found.append(candidate)
    return found[1:]


class PlainGraph:
    """Stages that DVC does not track (smoke runs, explorations): all are stale, none is recorded.

    Args:
        nodes: The stages by address.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = dict(nodes)

    def select(self, targets: Iterable[str]) -> list[str]:
        """Return the targets with everything above them, each after what it depends on."""
        return with_upstream(self.nodes, targets)

    def stale(self, address: str) -> bool:
        """Every stage is to run."""
        return True

    def missing_inputs(self, address: str) -> list[str]:
        """Nothing is known of inputs here."""
        return []

    def restore(self, address: str) -> bool:
        """There is no run cache."""
        return False

    def commit(self, address: str) -> None:
        """Nothing is recorded."""

    def recorded_hashes(self, address: str) -> dict[str, str]:
        """Nothing was recorded."""
        return {}
