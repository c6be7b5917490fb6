"""Mini-batch k-means: clusters that are there are found, twice alike."""

import pytest
import torch

from components.quantizers.minibatch_kmeans import minibatch_kmeans
from components.quantizers.nearest import nearest_codes
from components.quantizers.quantized import QuantizerError


def test_clusters_far_apart_are_found_twice_alike():
    generator = torch.Generator().manual_seed(0)
    means = 20 * torch.randn(6, 3, generator=generator)
    vectors = (means[:, None] + 0.1 * torch.randn(6, 80, 3, generator=generator)).flatten(0, 1)
    one, two = (minibatch_kmeans(vectors, 6, seed=5) for _ in range(2))
    assert torch.equal(one, two)
    assert one.dtype == torch.float32
    nearest = one[nearest_codes(means, one)]
    torch.testing.assert_close(nearest, means, atol=0.15, rtol=0)


def test_fewer_vectors_than_centres_are_refused():
    with pytest.raises(QuantizerError, match="2 vectors for 3"):
        minibatch_kmeans(torch.zeros(2, 2), 3, seed=0)
