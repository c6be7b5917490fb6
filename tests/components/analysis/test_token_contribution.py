"""Contribution and information of token positions, where the truth is known."""

import math

import pytest
import torch

from components.analysis.token_contribution import ContributionError, class_information, token_contribution


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weighted(weights: list[float]):
    """A decoder whose pixels are all `sum_i w_i z_i / 255`: grey levels move by w_i per unit of code i."""
    scale = torch.tensor(weights) / 255

    def decode(indices):
        return (indices.float() @ scale).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    return decode


def test_contribution_is_the_expected_change_of_the_picture():
    weights, size = [20.0, 4.0, 0.0, 1.0], 4
    indices = torch.randint(size, (40, 4), generator=generator())
    values = token_contribution(weighted(weights), indices, size, draws=300, generator=generator(1))
    change = (indices[..., None] - torch.arange(size)).abs().double().mean(-1)  # E |new - old| over uniform new codes
    expected = change * torch.tensor(weights, dtype=torch.float64)
    assert values.shape == (40, 4)
    torch.testing.assert_close(values.mean(0), expected.mean(0), rtol=0.03, atol=0.01)
    assert torch.equal(values[:, 2], torch.zeros(40, dtype=torch.float64))


def test_batches_of_any_size_visit_every_image():
    indices = torch.randint(3, (7, 2), generator=generator())
    values = token_contribution(weighted([50.0, 9.0]), indices, 3, draws=50, generator=generator(1), batch_size=3)
    assert bool((values > 0).all())


def test_nothing_to_analyse_is_an_error():
    with pytest.raises(ContributionError, match="at least one image"):
        token_contribution(weighted([1.0]), torch.zeros(0, 1, dtype=torch.long), 3, draws=1, generator=generator())


def test_a_code_that_is_the_class_tells_all_of_it_and_a_random_one_nothing():
    labels = torch.arange(4000) % 8
    shuffled = torch.randperm(8, generator=generator())[labels]
    random = torch.randint(64, (4000,), generator=generator(1))
    half = labels // 4
    indices = torch.stack([shuffled, random, half, torch.zeros_like(labels)], dim=1)
    bits = class_information(indices, labels, shuffles=5, generator=generator(2))
    torch.testing.assert_close(bits, torch.tensor([3.0, 0.0, 1.0, 0.0], dtype=torch.float64), atol=0.02, rtol=0)


def test_information_of_a_noisy_channel_is_its_closed_form():
    labels = torch.randint(2, (60_000,), generator=generator())
    flipped = torch.rand(60_000, generator=generator(1)) < 0.11
    bits = class_information((labels ^ flipped.long())[:, None], labels, shuffles=3, generator=generator(2))
    entropy = -(0.11 * math.log2(0.11) + 0.89 * math.log2(0.89))
    assert float(bits[0]) == pytest.approx(1 - entropy, abs=0.01)
