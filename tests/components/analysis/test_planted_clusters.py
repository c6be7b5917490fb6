import pytest
import torch

from components.analysis.planted_clusters import PlantingError, planted


@pytest.mark.parametrize("noise", [0.3, 0.03])
def test_clusters_keep_their_margin(noise):
    found = planted(6, 48, 6, 96, noise, torch.Generator().manual_seed(0), margin=0.75, gap=0.3)
    assert found.tokens.shape == (6, 48, 96)
    torch.testing.assert_close(found.tokens.norm(dim=-1), torch.ones(6, 48).double())
    for tokens, clusters in zip(found.tokens, found.clusters, strict=True):
        cosine = tokens @ tokens.T
        same = clusters[:, None] == clusters
        assert float(cosine[same].min()) >= 0.75
        assert float(cosine[~same].max()) <= 0.45


def test_cluster_sizes_follow_the_law():
    found = planted(300, 60, 3, 64, 0.01, torch.Generator().manual_seed(1))
    shares = found.clusters.flatten().bincount().double() / found.clusters.numel()
    torch.testing.assert_close(shares, torch.tensor([6, 3, 2]).double() / 11, rtol=0, atol=0.015)


def test_tokens_come_closer_to_their_centre_as_the_noise_falls():
    spreads = []
    for noise in (0.3, 0.1, 0.01):
        found = planted(4, 32, 4, 64, noise, torch.Generator().manual_seed(2))
        same = found.clusters[:, :, None] == found.clusters[:, None]
        spreads.append(1 - float((found.tokens @ found.tokens.transpose(1, 2))[same].mean()))
    assert spreads[0] > 5 * spreads[1] > 50 * spreads[2]


def test_a_draw_is_reproducible():
    one, two = (planted(3, 16, 4, 32, 0.1, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.tokens, two.tokens)


def test_impossible_clusters_are_refused():
    with pytest.raises(PlantingError, match="take more channels, fewer clusters or less noise"):
        planted(2, 32, 8, 2, 0.5, torch.Generator().manual_seed(0))
