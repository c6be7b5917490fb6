"""Anchor-relation tokens: distances and PageRank against networkx, tokens against brute force, and other names."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.bases import construct, specification
from components.tokenizers.graph.anchor_relation import (
    AnchorRelationEncoder,
    AnchorRelationError,
    NodeTokens,
    choose_anchors,
    hop_distances,
    node_hashes,
    page_rank,
    tokenize,
)

R = 3


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(nodes: int, edges: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = generator(seed)
    heads, tails = (torch.randint(nodes, (edges,), generator=source) for _ in range(2))
    return heads, torch.randint(R, (edges,), generator=source), tails


def tokens(graph, nodes, anchors, *, nearest=3, sampled_relations=2, seed=0) -> NodeTokens:
    heads, relations, tails = graph
    return tokenize(
        heads, relations, tails, nodes=nodes, relation_types=R, anchors=anchors, nearest=nearest,
        sampled_relations=sampled_relations, seed=seed,
    )  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(0, 40), st.integers(0, 1000))
def test_distances_are_those_of_networkx(nodes, edges, seed):
    heads, _, tails = random_graph(nodes, edges, seed)
    starts = torch.randperm(nodes, generator=generator(seed))[: min(4, nodes)]
    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(zip(heads.tolist(), tails.tolist(), strict=True))
    distances = hop_distances(heads, tails, nodes, starts)
    for row, start in zip(distances.tolist(), starts.tolist(), strict=True):
        reached = nx.single_source_shortest_path_length(graph, start)
        assert row == [reached.get(node, -1) for node in range(nodes)]


@pytest.mark.parametrize("seed", range(3))
def test_page_rank_is_that_of_networkx(seed):
    # Few edges, so that some nodes have none.
    heads, _, tails = random_graph(25, 30, seed)
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(25))
    graph.add_edges_from(zip(heads.tolist(), tails.tolist(), strict=True))
    expected = nx.pagerank(graph, tol=1e-12, max_iter=1000)
    ranks = page_rank(heads, tails, 25)
    assert ranks.tolist() == pytest.approx([expected[node] for node in range(25)], abs=1e-4)
    assert float(ranks.sum()) == pytest.approx(1)


def test_a_quarter_of_the_anchors_has_the_highest_degrees_and_none_is_chosen_twice():
    heads, _, tails = random_graph(60, 300, 0)
    anchors = choose_anchors(heads, tails, 60, 16, (0.25, 0.5, 0.25), generator())
    assert len(anchors.unique()) == 16
    degree = torch.bincount(torch.cat([heads, tails]), minlength=60)
    assert sorted(degree[anchors[:4]].tolist()) == sorted(degree.topk(4).values.tolist())
    rank = page_rank(torch.cat([heads, tails]), torch.cat([tails, heads]), 60)
    rank[anchors[:4]] = 0
    assert anchors[4:12].tolist() == rank.argsort(descending=True)[:8].tolist()
    others = choose_anchors(heads, tails, 60, 16, (0.25, 0.5, 0.25), generator(1))
    assert torch.equal(anchors[:12], others[:12])
    assert not torch.equal(anchors[12:], others[12:])


@pytest.mark.parametrize("seed", range(3))
def test_tokens_are_the_nearest_anchors_and_relation_types_at_the_node(seed):
    nodes = 20
    graph = random_graph(nodes, 25, seed)
    heads, relations, tails = (column.tolist() for column in graph)
    anchors = torch.randperm(nodes, generator=generator(seed))[:6]
    found = tokens(graph, nodes, anchors, nearest=4, sampled_relations=3)
    distances = hop_distances(graph[0], graph[2], nodes, anchors).t().tolist()
    for node in range(nodes):
        reachable = sorted((hops, place) for place, hops in enumerate(distances[node]) if hops >= 0)[:4]
        padding = 4 - len(reachable)
        assert found.anchors[node].tolist() == [place for _, place in reachable] + [6] * padding
        assert found.distances[node].tolist() == [hops for hops, _ in reachable] + [0] * padding
        incident = {r for head, r in zip(heads, relations, strict=True) if head == node}
        incident |= {R + r for r, tail in zip(relations, tails, strict=True) if tail == node}
        kept = [r for r in found.relations[node].tolist() if r != 2 * R]
        assert len(kept) == len(set(kept)) == min(3, len(incident))
        assert set(kept) <= incident


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 25), st.integers(1, 60), st.integers(0, 1000))
def test_other_names_of_the_nodes_change_no_hash_while_anchors_are_the_same(nodes, edges, seed):
    heads, relations, tails = random_graph(nodes, edges, seed)
    anchors = torch.randperm(nodes, generator=generator(seed))[:4]
    renamed = torch.randperm(nodes, generator=generator(seed + 1))
    shuffled = torch.randperm(edges, generator=generator(seed + 2))
    one = tokens((heads, relations, tails), nodes, anchors)
    other = tokens((renamed[heads][shuffled], relations[shuffled], renamed[tails][shuffled]), nodes, renamed[anchors])
    assert torch.equal(node_hashes(one), node_hashes(other)[renamed])


def test_hashes_tell_other_tokens_apart():
    graph = random_graph(200, 800, 0)
    found = tokens(graph, 200, torch.arange(20), nearest=6, sampled_relations=3)
    rows = torch.cat(list(found), 1)
    assert len(node_hashes(found).unique()) == len(rows.unique(dim=0))


def test_the_seed_decides_which_relation_types_are_sampled():
    graph = random_graph(40, 400, 0)
    samples = [tokens(graph, 40, torch.arange(5), sampled_relations=2, seed=seed).relations for seed in range(3)]
    assert torch.equal(samples[0], tokens(graph, 40, torch.arange(5), sampled_relations=2, seed=0).relations)
    assert not torch.equal(samples[0], samples[1])
    # Every type is sampled about equally often where all are there.
    counts = torch.stack(samples).flatten().bincount(minlength=2 * R + 1)[: 2 * R]
    assert counts.min() > 20


def encoder(nodes=20, **options) -> AnchorRelationEncoder:
    torch.manual_seed(0)
    given = {"anchors": 6, "nearest": 3, "sampled_relations": 2, "relation_types": R, "width": 8, **options}
    return AnchorRelationEncoder(nodes=nodes, **given)


def test_an_embedding_does_not_depend_on_the_order_of_the_tokens():
    graph = random_graph(20, 40, 0)
    found = tokens(graph, 20, torch.arange(6))
    model = encoder()
    model.take(found)
    expected = model()
    model.take(NodeTokens(found.anchors.flip(1), found.distances.flip(1), found.relations.flip(1)))
    torch.testing.assert_close(model(), expected)
    torch.testing.assert_close(model(torch.tensor([3, 17])), expected[[3, 17]])


def test_padding_has_no_part_in_an_embedding():
    model = encoder(nodes=2)
    absent = NodeTokens(torch.full((2, 3), 6), torch.tensor([[0, 0, 0], [1, 2, 3]]), torch.full((2, 2), 2 * R))
    model.take(absent)
    with torch.no_grad():
        model.anchor.weight[6] = 9.0
        model.relation.weight[2 * R] = 9.0
    embeddings = model()
    assert torch.equal(embeddings[0], embeddings[1])
    torch.testing.assert_close(embeddings[0], model.mix(torch.zeros(16)))


def test_its_size_does_not_depend_on_the_number_of_nodes():
    sizes = {sum(parameter.numel() for parameter in encoder(nodes).parameters()) for nodes in (20, 2_000)}
    assert len(sizes) == 1
    with torch.device("meta"):
        description = specification(
            "components.tokenizers.graph.anchor_relation", nodes=10, relation_types=R, width=8, anchors=4, nearest=2,
            sampled_relations=1, farthest=3,
        )  # fmt: skip
        assert construct(description).vocabulary == 4 + 4 + 2 * R


def test_graphs_and_tokens_that_do_not_fit_are_refused():
    graph = random_graph(5, 6, 0)
    with pytest.raises(AnchorRelationError, match="6 anchors were asked of 5 nodes"):
        choose_anchors(graph[0], graph[2], 5, 6, (0.4, 0.4, 0.2), generator())
    with pytest.raises(AnchorRelationError, match="add up to 1"):
        choose_anchors(graph[0], graph[2], 5, 3, (0.4, 0.4, 0.4), generator())
    with pytest.raises(AnchorRelationError, match="nearest=3 of 2 anchors"):
        tokens(graph, 5, torch.arange(2))
