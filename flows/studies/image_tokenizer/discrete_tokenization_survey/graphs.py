"""Link prediction on an import graph: tokens of anchors and relations against a table with a row per node.

Both arms share graph, held-out links, decoder, loss and optimiser; only where a node's embedding comes from differs.

Letters: `N` nodes, `E` links, `R` relation types.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bases import construct, load_model, save_model, specification
from components.data import tables
from components.data.import_graph import RELATIONS, ImportGraph, import_graph
from components.errors import TesseraError
from components.metrics.link_prediction import filtered_ranks
from components.metrics.tables import MetricTable
from components.tokenizers.graph.anchor_relation import (
    AnchorRelationEncoder,
    NodeTokens,
    choose_anchors,
    node_hashes,
    tokenize,
)
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.models import described

_HELD_OUT, _ANCHORS, _RELATIONS, _WEIGHTS = 3, 4, 5, 6  # streams; 0 to 2 seed the process
_TOGETHER = 512


class Links(NamedTuple):
    """Links as queries with an answer, each in both directions: (head, r, tail) and (tail, R + r, head).

    Attributes:
        sources: int64 (2 E,).
        relations: int64 (2 E,).
        targets: int64 (2 E,).
    """

    sources: Tensor
    relations: Tensor
    targets: Tensor


def train(stage: StageContext) -> None:
    """Train the embeddings and the decoder of one arm; write the model and its curves."""
    params = stage.params
    graph = read_graph(stage)
    held_out = hold_out(graph, params.held_out_share, _generator(stage, _HELD_OUT))
    learned = both_ways(graph, ~held_out)
    description = predictor_description(params, graph)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    if isinstance(model.encoder, AnchorRelationEncoder):
        model.encoder.take(tokens_of(stage, graph, ~held_out))

    def draw_batch(_: int, generator: torch.Generator) -> Links:
        rows = torch.randint(len(learned.sources), (params.batch_size,), generator=generator)
        return Links(*(column[rows] for column in learned))

    def loss(model: nn.Module, batch: Links, _: torch.Generator) -> tuple[Tensor, dict]:
        return F.cross_entropy(model(batch.sources, batch.relations), batch.targets), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(
            steps=params.steps,
            learning_rate=params.learning_rate,
            warmup_steps=params.warmup_steps,
            final_fraction=params.final_fraction,
            weight_decay=params.weight_decay,
            gradient_clip=params.gradient_clip,
            ema_decay=params.weight_ema_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/link"},
    )
    save_model(stage.output, model, description)
    curves.write(stage.output)


@torch.no_grad()
def evaluate(stage: StageContext) -> None:
    """Rank the right node of every held-out link among all nodes, in both directions."""
    params, table = stage.params, MetricTable()
    graph = read_graph(stage)
    held_out = hold_out(graph, params.held_out_share, _generator(stage, _HELD_OUT))
    model = load_model(stage.inputs["train"]).to(stage.device)
    every, asked = both_ways(graph, torch.ones_like(held_out)), both_ways(graph, held_out)
    ranks = torch.cat(
        [_ranks(model, every, Links(*part), stage.device) for part in zip(*map(_parts, asked), strict=True)]
    )
    table.add_items("mrr", ranks.reciprocal().tolist(), unit="")
    table.add_items("hits_at_10", (ranks <= 10).double().tolist(), unit="share")
    for number, relation in enumerate(RELATIONS):
        of_relation = ranks[asked.relations % len(RELATIONS) == number]
        if len(of_relation):
            table.add_items("mrr", of_relation.reciprocal().tolist(), unit="", at={"relation": relation})
    sizes = {
        "parameters": _size(model),
        "node_parameters": _size(model.encoder),
        "vocabulary": model.encoder.vocabulary,
        "nodes": len(graph.modules),
        "links": len(graph.heads),
    }
    for name, size in sizes.items():
        table.add(name, size, unit="", samples=1)
    table.add("told_apart", _told_apart(model.encoder), unit="share", samples=len(graph.modules))
    table.write(stage.output)


def read_graph(stage: StageContext) -> ImportGraph:
    """Return the import graph of the stage's source text.

    Raises:
        TesseraError: The stage was given no such data set.
    """
    name = stage.params.graph_dataset
    directory = stage.inputs.get(f"data/{name}")
    if directory is None:
        raise TesseraError(f"The graph task reads data set {name!r}; name it under 'data' of the variant or profile.")
    return import_graph(tables.read(directory, "sources.parquet", ["module", "text"]))


def hold_out(graph: ImportGraph, share: float, generator: torch.Generator) -> Tensor:
    """Choose links at random to be held out, bool (E,): as near to `share` as every node keeping a link allows.

    In a random order the first link of every node stays; of the others, the last ones are held out.
    """
    links, nodes = len(graph.heads), len(graph.modules)
    order = torch.randperm(links, generator=generator)
    first = torch.full((nodes,), links)
    for ends in (graph.heads, graph.tails):
        first.scatter_reduce_(0, ends, order, "amin")
    free = (order != first[graph.heads]) & (order != first[graph.tails])
    wanted = min(round(share * links), int(free.sum()))
    last = torch.where(free, order, -1).topk(wanted).indices
    return torch.zeros(links, dtype=torch.bool).index_fill_(0, last, True)


def both_ways(graph: ImportGraph, chosen: Tensor) -> Links:
    """Return the chosen links, bool (E,), as queries in both directions."""
    heads, relations, tails = graph.heads[chosen], graph.relations[chosen], graph.tails[chosen]
    return Links(
        torch.cat([heads, tails]), torch.cat([relations, relations + len(RELATIONS)]), torch.cat([tails, heads])
    )


def tokens_of(stage: StageContext, graph: ImportGraph, learned: Tensor) -> NodeTokens:
    """Tokenize the nodes by the links that may be learned from, bool (E,): held-out ones must not show."""
    params, nodes = stage.params, len(graph.modules)
    heads, relations, tails = graph.heads[learned], graph.relations[learned], graph.tails[learned]
    generator = _generator(stage, _ANCHORS)
    anchors = choose_anchors(heads, tails, nodes, params.anchors, params.anchor_shares, generator)
    return tokenize(
        heads,
        relations,
        tails,
        nodes=nodes,
        relation_types=len(RELATIONS),
        anchors=anchors,
        nearest=params.nearest,
        sampled_relations=params.sampled_relations,
        seed=derive_seed(stage.seed, _RELATIONS),
    )


def predictor_description(params, graph: ImportGraph) -> dict:
    """Return the description (components.bases) of encoder and decoder."""
    sizes = {"nodes": len(graph.modules)}
    if params.node_embedding == "anchor_relation":
        sizes["relation_types"] = len(RELATIONS)
    encoder = described(f"components.tokenizers.graph.{params.node_embedding}", params, sizes)
    return specification(
        "components.nn.link_prediction", encoder=encoder, relation_types=2 * len(RELATIONS), width=params.width
    )


def _ranks(model: nn.Module, every: Links, asked: Links, device: str) -> Tensor:
    scores = model(asked.sources.to(device), asked.relations.to(device)).cpu()
    known = torch.zeros(scores.shape, dtype=torch.bool)
    for relation in asked.relations.unique():
        # Right answers of each query with this relation: a row of the relation's adjacency matrix.
        of_relation = every.relations == relation
        adjacent = torch.zeros(scores.shape[1], scores.shape[1], dtype=torch.bool)
        adjacent[every.sources[of_relation], every.targets[of_relation]] = True
        queries = asked.relations == relation
        known[queries] = adjacent[asked.sources[queries]]
    return filtered_ranks(scores, asked.targets, known)


def _told_apart(encoder: nn.Module) -> float:
    if not isinstance(encoder, AnchorRelationEncoder):
        return 1.0
    tokens = NodeTokens(encoder.anchors_of, encoder.distances_of, encoder.relations_of)
    hashes = node_hashes(tokens)
    _, place, count = hashes.unique(return_inverse=True, return_counts=True)
    return float((count[place] == 1).double().mean())


def _generator(stage: StageContext, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(stage.seed, stream))


def _parts(column: Tensor) -> tuple[Tensor, ...]:
    return column.split(_TOGETHER)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
