"""The controls against counting."""

import math

import pytest
import torch

from components.language.context_free import ContextFreeTokens, PositionHistograms
from components.nn.independent_heads import IndependentHeads


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_histograms_are_smoothed_counts_of_each_number_at_each_position():
    tokens = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [2, 1]], [[1, 1], [2, 2]]])  # 3 images, 2 positions, 2 numbers
    histograms = PositionHistograms(tokens, 3)
    nll = histograms.nll(torch.tensor([[[0, 1], [2, 0]]]), None)
    expected = [[3 / 6, 3 / 6], [4 / 6, 1 / 6]]
    torch.testing.assert_close(nll[0].neg().exp(), torch.tensor(expected, dtype=torch.float64))


def test_probabilities_of_a_number_sum_to_one_and_pooling_forgets_the_position():
    tokens = torch.randint(4, (50, 3, 2), generator=generator())
    for histograms in (PositionHistograms(tokens, 4), PositionHistograms(tokens, 4).pooled()):
        total = sum(histograms.nll(torch.full((1, 3, 2), level), None).neg().exp() for level in range(4))
        torch.testing.assert_close(total, torch.ones(1, 3, 2, dtype=torch.float64))
    pooled = PositionHistograms(tokens, 4).pooled().nll(torch.zeros(1, 3, 2, dtype=torch.long), None)[0]
    counted = ((tokens == 0).sum((0, 1)) + 1) / (150 + 4)
    torch.testing.assert_close(pooled.neg().exp(), counted.double().expand(3, 2))


def test_samples_have_the_histograms_frequencies_and_no_correlation():
    first = torch.randint(2, (4000, 1, 1), generator=generator())
    tokens = torch.cat([first, first], dim=2)  # equal numbers: only a joint model could know
    drawn = PositionHistograms(tokens, 2).sample(torch.zeros(4000), generator())
    assert drawn.shape == (4000, 1, 2)
    assert float(drawn[..., 0].double().mean()) == pytest.approx(float(first.double().mean()), abs=0.03)
    assert float((drawn[..., 0] == drawn[..., 1]).double().mean()) == pytest.approx(0.5, abs=0.03)


@torch.no_grad()
def test_without_context_every_token_has_the_same_distribution():
    model = ContextFreeTokens(head=IndependentHeads(4, 2, 3), positions=5, width=4)
    nll = model.nll(torch.ones(2, 5, 2, dtype=torch.long), torch.tensor([0, 1]))
    assert nll.shape == (2, 5, 2)
    assert torch.equal(nll, nll[:1, :1].expand(2, 5, 2))
    drawn = model.sample(torch.zeros(300), generator(), guidance=1.5, schedule="constant")
    assert drawn.shape == (300, 5, 2)
    assert len(drawn.flatten().unique()) == 3
    assert float(model.loss(drawn, torch.zeros(300), generator())) == pytest.approx(math.log(3), abs=0.2)
