"""Gradients through quantizers: lengths against autograd, promised slopes against functions with known ones."""

import pytest
import torch
from torch import nn

from components.analysis.gradient_flow import ArrivingGradient, GradientFlowError, realised_share


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_recorded_scalar_is_filled_with_the_length_that_arrives():
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(5, 4), nn.Linear(4, 2)
    arriving = ArrivingGradient(encoder)
    for seed in range(2):
        output = encoder(draw(3, 5, seed=seed).float())
        recorded = arriving.record()
        output.retain_grad()
        decoder(output).square().sum().backward()
        assert float(recorded) == pytest.approx(float(output.grad.norm()), rel=1e-6)
    with torch.no_grad():
        encoder(torch.zeros(1, 5))
    assert arriving.record() is recorded
    arriving.close()
    encoder(torch.zeros(1, 5))
    assert arriving.record() is recorded


def test_there_is_nothing_to_record_before_a_forward_pass():
    with pytest.raises(GradientFlowError, match="behind the forward pass"):
        ArrivingGradient(nn.Linear(2, 2)).record()


def test_a_true_gradient_of_a_quadratic_keeps_its_promise_at_any_step():
    matrix = draw(6, 6)
    for step in (1e-3, 0.5):
        share = realised_share(lambda z: (z @ matrix).square().sum(1), draw(10, 6, seed=1), step)
        torch.testing.assert_close(share, torch.ones(10, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_gradient_that_is_twice_the_true_one_keeps_half_of_its_promise():
    def loss(z):
        doubled = 2 * z - z.detach()
        return (doubled * draw(4, seed=2)).sum(1)

    torch.testing.assert_close(
        realised_share(loss, draw(8, 4), 0.1), torch.full((8,), 0.5, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_straight_through_promises_what_a_small_step_does_not_find():
    def loss(z):
        rounded = z + (z.round() - z).detach()
        return (rounded - 3.3).square().sum(1)

    latents = torch.full((5, 3), 1.2, dtype=torch.float64)
    assert torch.equal(realised_share(loss, latents, 1e-3), torch.zeros(5, dtype=torch.float64))
    # A step over the borders on both sides finds it.
    assert realised_share(loss, latents, 1.0).mean() > 0.5


def test_without_a_gradient_nothing_is_realised():
    share = realised_share(lambda z: (z * 0).sum(1), draw(4, 3), 0.1)
    assert torch.equal(share, torch.zeros(4, dtype=torch.float64))
