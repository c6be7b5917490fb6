"""Codes made after training: means of clusters, and nothing that learns."""

import torch
from sklearn.cluster import KMeans

from components.quantizers.kmeans import KMeansQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(vectors, size=20) -> KMeansQuantizer:
    quantizer = KMeansQuantizer(size, vectors.shape[-1])
    quantizer.start_from(vectors, generator())
    return quantizer


def test_codes_are_the_means_of_the_vectors_that_choose_them():
    vectors = torch.randn(10, 50, 4, generator=generator())
    quantizer = fitted(vectors)
    indices = quantizer(vectors).indices
    for code in range(20):
        torch.testing.assert_close(quantizer.centres[code], vectors[indices == code].mean(0), atol=1e-5, rtol=1e-5)


def test_its_distortion_is_about_that_of_scikit_learn():
    vectors = torch.randn(600, 4, generator=generator())
    ours = float((vectors - fitted(vectors)(vectors).values).square().sum())
    peers = [KMeans(20, n_init=1, random_state=seed).fit(vectors.numpy()).inertia_ for seed in range(5)]
    assert ours < 1.05 * max(peers)


def test_nothing_moves_after_the_fit():
    vectors = torch.randn(200, 4, generator=generator())
    quantizer = fitted(vectors).train()
    before = quantizer.centres.clone()
    result = quantizer(vectors.requires_grad_())
    quantizer.after_step(0, generator())
    assert torch.equal(quantizer.centres, before)
    assert float(result.loss) == 0
    assert not list(quantizer.parameters())


def test_as_many_codes_as_distinct_vectors_lose_nothing():
    vectors = torch.randn(20, 4, generator=generator()).repeat(5, 1)
    torch.testing.assert_close(fitted(vectors)(vectors).values, vectors)
