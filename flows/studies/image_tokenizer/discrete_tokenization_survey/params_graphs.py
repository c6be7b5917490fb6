"""Parameters and metrics of the survey's link prediction on an import graph."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class GraphTrainParams(StudyParams):
    """How nodes are embedded, and links learned."""

    graph_dataset: Literal["python-source"] = "python-source"
    """Data set of source text whose modules import one another."""
    node_embedding: Literal["anchor_relation", "node_table"] = "anchor_relation"
    """Module of components.tokenizers.graph."""
    width: int = Field(64, ge=2, multiple_of=2)
    """Width of a node's embedding: half real parts, half imaginary ones."""
    anchors: int = Field(64, ge=1)
    """Nodes that are anchors."""
    anchor_shares: tuple[float, float, float] = (0.4, 0.4, 0.2)
    """Share of the anchors chosen by degree, by PageRank and at random."""
    nearest: int = Field(8, ge=1)
    """Anchors among the tokens of a node."""
    sampled_relations: int = Field(4, ge=1)
    """Relation types among the tokens of a node, inverses included."""
    farthest: int = Field(8, ge=1)
    """Distances to an anchor above this are not told apart."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the links that are predicted and not learned."""


GRAPH_METRICS = {
    "mrr": Metric(
        "", "higher", "Mean reciprocal rank of the right node of a held-out link, other right ones left out."
    ),
    "hits_at_10": Metric("share", "higher", "Share of held-out links whose right node is among the first ten."),
    "parameters": Metric("", "lower", "Trained numbers, the shared decoder's included."),
    "node_parameters": Metric("", "lower", "Trained numbers that nodes are embedded with."),
    "vocabulary": Metric("", "lower", "Rows of the tables that nodes are embedded from."),
    "told_apart": Metric("share", "higher", "Share of nodes whose tokens no other node has."),
    "nodes": Metric("", "neither", "Nodes of the graph."),
    "links": Metric("", "neither", "Links of the graph."),
}


def graph_modules(params: GraphTrainParams) -> tuple[str, ...]:
    """Return the modules of components that a graph arm chooses by name."""
    return ("components.nn.link_prediction", f"components.tokenizers.graph.{params.node_embedding}")
