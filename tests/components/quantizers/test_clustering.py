"""k-means against scikit-learn, a law of its own and cases that can be solved by hand."""

import itertools

import pytest
import torch
from sklearn.cluster import KMeans

from components.quantizers.clustering import kmeans
from components.quantizers.quantized import QuantizerError


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distortion(vectors, centres) -> float:
    return float(torch.cdist(vectors.double(), centres.double()).min(1).values.square().sum())


@pytest.mark.parametrize("seeding", ["random", "plus_plus"])
def test_distortion_never_rises_with_an_iteration_and_settles(seeding):
    vectors = torch.randn(300, 5, generator=generator())
    course = [
        distortion(vectors, kmeans(vectors, 40, generator(1), iterations=count, seeding=seeding)) for count in range(12)
    ]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(course))
    assert course[-1] < 0.9 * course[0]


def test_lloyd_iterations_from_the_same_seeds_end_where_scikit_learn_ends():
    vectors = torch.randn(400, 4, generator=generator())
    start = kmeans(vectors, 12, generator(2), iterations=0)
    ours = kmeans(vectors, 12, generator(2), iterations=300)
    peer = KMeans(12, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(vectors.numpy())
    torch.testing.assert_close(ours, torch.from_numpy(peer.cluster_centers_), atol=1e-4, rtol=1e-4)


def test_plus_plus_seeding_finds_every_one_of_many_separated_clusters():
    middles = torch.randn(30, 6, generator=generator()) * 100
    vectors = (middles[:, None] + torch.randn(30, 20, 6, generator=generator(1))).flatten(0, 1)
    found = kmeans(vectors, 30, generator(2), iterations=20, seeding="plus_plus")
    assert float(torch.cdist(middles, found).min(1).values.max()) < 2


def test_plus_plus_draws_the_next_centre_by_squared_distance():
    # From 0 the others are drawn with odds 1 to 9.
    vectors = torch.tensor([[0.0]] * 98 + [[1.0], [3.0]])
    second = []
    for seed in range(600):
        centres = kmeans(vectors, 2, generator(seed), iterations=0, seeding="plus_plus").flatten()
        if centres[0] == 0:
            second.append(float(centres[1]))
    assert set(second) == {1.0, 3.0}
    assert second.count(3.0) / len(second) == pytest.approx(0.9, abs=0.04)


def test_no_centre_is_left_without_vectors_while_there_are_distinct_ones():
    vectors = torch.randn(64, 3, generator=generator())
    centres = kmeans(vectors, 64, generator(1), iterations=10)
    assert distortion(vectors, centres) == pytest.approx(0.0, abs=1e-8)
    clumped = torch.cat([torch.zeros(500, 3), vectors])
    assert distortion(clumped, kmeans(clumped, 65, generator(1), iterations=20)) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("seeding", ["random", "plus_plus"])
def test_more_centres_than_vectors_are_still_all_different(seeding):
    vectors = torch.randn(5, 4, generator=generator())
    centres = kmeans(vectors, 20, generator(), iterations=0, seeding=seeding)
    assert float((torch.cdist(centres, centres) + torch.eye(20)).min()) > 1e-4


def test_nothing_to_cluster_and_unknown_seeding_are_refused():
    with pytest.raises(QuantizerError, match="no vectors"):
        kmeans(torch.empty(0, 3), 4, generator(), iterations=1)
    with pytest.raises(QuantizerError, match="random, plus_plus"):
        kmeans(torch.ones(3, 3), 2, generator(), iterations=1, seeding="farthest")
