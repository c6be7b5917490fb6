"""The two draws of one step back: against Bayes' rule, transition matrices and counted draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from components.diffusion.noise import AbsorbingNoise, Noise, UniformNoise
from components.diffusion.reparameterized import (
    clean_probability,
    draw_earlier,
    posterior,
    routed_posterior,
    routers,
)
from components.diffusion.schedules import CosineSchedule, DiffusionError, Grid, LinearSchedule

V = 5


def any_noise(seed: int) -> Noise:
    """A noise distribution of unequal weights."""
    noise = Noise(V, range(V))
    noise.distribution = torch.rand(V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise.distribution /= noise.distribution.sum()
    return noise


def bayes(noise: Noise, alpha_s: float, alpha_t: float) -> torch.Tensor:
    """q(x_s | x_t, x_0) by enumeration from transition matrices, (x_t, x_0, x_s)."""
    start, jump = noise.transition(alpha_s), noise.transition(alpha_t / alpha_s)
    joint = start[:, :, None] * jump[None]  # x_0, x_s, x_t
    return (joint / joint.sum(1, keepdim=True)).permute(2, 0, 1)


@given(st.integers(0, 100), st.floats(0.02, 0.97), st.floats(0.02, 0.97))
def test_the_mixture_of_the_two_draws_is_bayes_posterior(seed, first, second):
    noise, alpha_s, alpha_t = any_noise(seed), max(first, second) + 0.01, min(first, second)
    x_t, x_0 = (grid.reshape(-1) for grid in torch.meshgrid(torch.arange(V), torch.arange(V), indexing="ij"))
    expected = bayes(noise, alpha_s, alpha_t).reshape(V * V, V)
    for exact in (posterior, routed_posterior):
        got = exact(x_t, x_0, *torch.tensor([alpha_s, alpha_t], dtype=torch.float64), noise)
        assert (got - expected).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
def test_it_is_bayes_to_twelve_digits_for_single_steps_and_for_jumps(schedule):
    grid = Grid(schedule, 20)
    x_t, x_0 = (places.reshape(-1) for places in torch.meshgrid(torch.arange(V), torch.arange(V), indexing="ij"))
    for noise in (any_noise(1), UniformNoise(V, [4])):
        for later in range(1, 20):
            for earlier in {later - 1, later // 2, 0}:
                alpha_s, alpha_t = grid.alphas[earlier], grid.alphas[later]
                expected = bayes(noise, float(alpha_s), float(alpha_t)).reshape(V * V, V)
                reachable = expected.isfinite().all(1)
                assert reachable.sum() >= V * (V - 1)
                args = (x_t[reachable], x_0[reachable], alpha_s, alpha_t, noise)
                assert (routed_posterior(*args) - expected[reachable]).abs().max() < 1e-12
                assert (posterior(*args) - expected[reachable]).abs().max() < 1e-12


def test_a_mask_stays_with_one_minus_l2_and_l2_of_the_linear_schedule_is_one_over_t():
    grid, noise = Grid(LinearSchedule(), 10), AbsorbingNoise(V, 4)
    for t in range(1, 11):
        alpha_s, alpha_t = grid.alphas[t - 1], grid.alphas[t]
        assert float(clean_probability(alpha_s, alpha_t)) == pytest.approx(1 / t, abs=1e-15)
        got = routed_posterior(torch.tensor([4]), torch.tensor([2]), alpha_s, alpha_t, noise)[0]
        expected = torch.tensor([0, 0, 1 / t, 0, 1 - 1 / t], dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)
        clean = routed_posterior(torch.tensor([2]), torch.tensor([2]), alpha_s, alpha_t, noise)[0]
        assert clean.tolist() == [0, 0, 1, 0, 0]


def test_a_jump_to_the_start_makes_everything_clean():
    grid, noise = Grid(CosineSchedule(), 10), any_noise(3)
    tokens = torch.arange(V)
    coins = routers(tokens, grid.alphas[0], grid.alphas[7], noise)
    torch.testing.assert_close(coins.stay, torch.ones(V, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(coins.clean, torch.ones(V, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("noise", [UniformNoise(V), UniformNoise(V, [0]), AbsorbingNoise(V, 4)])
def test_draws_with_the_true_start_have_the_marginal_of_the_forward_process(noise):
    grid, draws = Grid(LinearSchedule(), 8), 100_000
    generator = torch.Generator().manual_seed(0)
    alpha_t, alpha_s = grid.alphas[6], grid.alphas[3]
    x_0 = torch.full((draws,), 2)
    x_t = torch.multinomial(noise.transition(float(alpha_t))[2].float(), draws, True, generator=generator)
    x_s = draw_earlier(x_t, x_0, alpha_s, alpha_t, noise, generator)
    expected = noise.transition(float(alpha_s))[2] * draws
    observed = x_s.bincount(minlength=V)
    assert observed[expected == 0].sum() == 0
    assert chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 0.01


def test_what_noise_cannot_explain_is_refused():
    with pytest.raises(DiffusionError, match="cannot come from"):
        posterior(torch.tensor([1]), torch.tensor([2]), torch.tensor(0.5), torch.tensor(0.2), AbsorbingNoise(V, 4))
