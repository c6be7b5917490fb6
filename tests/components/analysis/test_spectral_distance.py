import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.analysis import spectral_distance as spectral
from components.analysis.spectral_distance import SpectrumError, spectral_distance


def drawn(seed: int, tokens: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two graphs' tokens, and a partition of each into exactly so many groups."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, tokens, 4, generator=generator, dtype=torch.float64)
    labels = torch.cat([torch.arange(groups), torch.randint(groups, (tokens - groups,), generator=generator)])
    return values, torch.stack([labels[torch.randperm(tokens, generator=generator)] for _ in range(2)])


def lifted(graph: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The lifted weights of one graph, entry by entry."""
    count = len(graph)
    result = torch.zeros_like(graph)
    for i in range(count):
        for j in range(count):
            own, other = groups == groups[i], groups == groups[j]
            result[i, j] = graph[own][:, other].sum() / (own.sum() * other.sum())
    return result


@pytest.mark.parametrize("kind", spectral.WEIGHTS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.data())
def test_the_lifted_spectrum_is_that_of_the_coarse_graph_and_ones(kind, seed, tokens, data):
    count = data.draw(st.integers(1, tokens))
    values, groups = drawn(seed, tokens, count)
    graph = spectral.weights(values, kind)
    coarse = spectral.spectrum(spectral.coarsened(graph, groups))
    found = spectral.lifted_spectrum(graph, groups)
    for row in range(2):
        full = torch.linalg.eigvalsh(spectral.laplacian(lifted(graph[row], groups[row])[None])[0])
        torch.testing.assert_close(found[row], full, rtol=0, atol=1e-9)
        wanted = torch.cat([coarse[row], torch.ones(tokens - count).double()]).sort().values
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.data())
def test_the_coarse_weights_are_sums_with_self_loops(seed, tokens, data):
    count = data.draw(st.integers(1, tokens))
    values, groups = drawn(seed, tokens, count)
    graph = spectral.weights(values, "similarity")
    found = spectral.coarsened(graph, groups)
    for a in range(count):
        for b in range(count):
            total = sum(
                float(graph[0, i, j])
                for i in range(tokens)
                for j in range(tokens)
                if groups[0, i] == a and groups[0, j] == b
            )
            assert float(found[0, a, b]) == pytest.approx(total, abs=1e-12)
    torch.testing.assert_close(found.sum((1, 2)), graph.sum((1, 2)))


@pytest.mark.parametrize("kind", spectral.WEIGHTS)
def test_merging_equal_tokens_changes_nothing(kind):
    values = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 1]])
    graph = spectral.weights(values[:, groups[0]], kind)
    assert float(spectral_distance(graph, groups)) < 1e-7
    other = torch.tensor([[0, 1, 2, 3, 4, 3, 1, 1]])
    assert float(spectral_distance(graph, other)) > 1e-2


def test_keeping_every_token_changes_nothing_and_the_distance_is_the_sum_of_sorted_differences():
    values, groups = drawn(3, 7, 3)
    graph = spectral.weights(values, "distance")
    assert float(spectral_distance(graph, torch.arange(7).expand(2, -1)).max()) < 1e-12
    own = spectral.spectrum(graph)
    wanted = (own - spectral.lifted_spectrum(graph, groups)).abs().sum(1)
    assert torch.equal(spectral_distance(graph, groups, own), wanted)
    assert (wanted > 0).all()


def test_weights_are_the_papers_distance_or_the_similarity():
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]])
    distance = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    similarity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert spectral.weights(tokens, "distance")[0].tolist() == distance
    assert spectral.weights(tokens, "similarity")[0].tolist() == similarity


def test_a_complete_graph_has_the_known_spectrum():
    graph = torch.ones(1, 6, 6).double() - torch.eye(6)
    found = spectral.spectrum(graph)[0]
    torch.testing.assert_close(found, torch.tensor([0.0] + [1.2] * 5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_an_unconnected_token_stands_alone():
    graph = torch.zeros(1, 3, 3).double()
    graph[0, 0, 1] = graph[0, 1, 0] = 1
    assert spectral.laplacian(graph)[0].tolist() == [[1, -1, 0], [-1, 1, 0], [0, 0, 1]]


def test_dropped_tokens_and_unknown_weights_are_refused():
    graph = spectral.weights(torch.randn(1, 3, 2), "distance")
    with pytest.raises(SpectrumError, match="was dropped, not merged"):
        spectral.coarsened(graph, torch.tensor([[0, -1, 1]]))
    with pytest.raises(SpectrumError, match="expected 'distance' or 'similarity'"):
        spectral.weights(torch.randn(1, 3, 2), "cosine")
