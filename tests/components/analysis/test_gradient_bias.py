"""Gradient estimators against enumeration, finite differences and the quantizers that use them."""

import math

import pytest
import torch
import torch.nn.functional as F

from components.analysis.gradient_bias import (
    GradientBiasError,
    Problems,
    draw_problems,
    estimates,
    measure,
)
from components.quantizers.gumbel import GumbelQuantizer

P, K, D = 5, 4, 3


@pytest.fixture(scope="module")
def problems() -> Problems:
    return draw_problems(P, K, D, 2.0, torch.Generator().manual_seed(0))


def doubled(problems: Problems) -> Problems:
    return Problems(*(part.double() for part in problems[:4]), problems.temperature)


def expected_loss(problems: Problems, place: int, vector: torch.Tensor) -> float:
    """F(z) of one problem, term by term."""
    codes, weights, target = problems.codes[place], problems.weights[place], problems.targets[place]
    scores = [-float((vector - code).square().sum()) / problems.temperature for code in codes]
    largest = max(scores)
    shares = [math.exp(score - largest) for score in scores]
    losses = [float((torch.tanh(weights @ code) - target).square().sum()) / 2 for code in codes]
    return sum(share / sum(shares) * loss for share, loss in zip(shares, losses, strict=True))


def noise(draws: int, seed=0) -> torch.Tensor:
    return -torch.empty(draws, P, K).exponential_(generator=torch.Generator().manual_seed(seed)).log()


def noise_for_every_code() -> torch.Tensor:
    """Noise (K, P, K) whose k-th draw is code k, whatever its probability."""
    return 1e6 * torch.eye(K).unsqueeze(1).expand(K, P, K)


def enumerated(problems: Problems, estimator: str) -> torch.Tensor:
    """The exact expectation (P, D) of an estimator that draws a code and nothing else."""
    shares = problems.log_probabilities(problems.vectors).exp()
    each = estimates(problems, estimator, noise_for_every_code())
    return torch.einsum("pk,kpd->pd", shares, each)


def test_the_true_gradient_is_the_slope_of_the_enumerated_expectation(problems):
    exact = doubled(problems)
    gradient, step = exact.true_gradient(), 1e-5
    for place in range(P):
        for axis in range(D):
            move = torch.zeros(D, dtype=torch.float64)
            move[axis] = step
            vector = exact.vectors[place]
            slope = (expected_loss(exact, place, vector + move) - expected_loss(exact, place, vector - move)) / (
                2 * step
            )
            assert float(gradient[place, axis]) == pytest.approx(slope, abs=1e-7)


def test_reinforce_has_the_true_gradient_as_its_expectation(problems):
    torch.testing.assert_close(enumerated(problems, "reinforce"), problems.true_gradient(), atol=1e-5, rtol=1e-4)


def test_straight_through_has_the_expected_slope_at_the_codes_which_is_another(problems):
    shares = problems.log_probabilities(problems.vectors).exp()
    codes = problems.codes.clone().requires_grad_()
    problems.loss(codes.transpose(0, 1)).sum().backward()
    expected = (shares.unsqueeze(2) * codes.grad).sum(1)
    torch.testing.assert_close(enumerated(problems, "ste"), expected)
    assert (expected - problems.true_gradient()).norm(dim=1).min() > 0.01


def test_the_rotation_turns_and_scales_the_straight_through_gradient(problems):
    straight = estimates(problems, "ste", noise_for_every_code())
    turned = estimates(problems, "rotation_trick", noise_for_every_code())
    codes, vectors = problems.codes.transpose(0, 1), problems.vectors
    scale = codes.norm(dim=2) / vectors.norm(dim=1)
    torch.testing.assert_close(turned.norm(dim=2), straight.norm(dim=2) * scale, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        F.cosine_similarity(turned, vectors.expand_as(turned), dim=2), F.cosine_similarity(straight, codes, dim=2),
        atol=1e-4, rtol=1e-3,
    )  # fmt: skip


def test_the_straight_through_gumbel_gradient_is_that_of_the_gumbel_quantizer():
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(K, D, start_temperature=0.7, end_temperature=0.7).train()
    problem = draw_problems(1, K, D, 2.0, torch.Generator().manual_seed(3))
    codes = problem.codes[0]
    with torch.no_grad():
        # log p(k | z) up to a constant is linear in z: 2 z.e / T - ||e||^2 / T.
        quantizer.codes.copy_(codes)
        quantizer.to_logits.weight.copy_(2 * codes / problem.temperature)
        quantizer.to_logits.bias.copy_(-codes.square().sum(1) / problem.temperature)
    draws = 50
    vectors = problem.vectors.repeat(draws, 1).requires_grad_()
    torch.manual_seed(7)
    problem.loss(quantizer(vectors).values.unsqueeze(1)).sum().backward()
    torch.manual_seed(7)
    same = -torch.empty(draws, K).exponential_().log()
    found = estimates(problem, "gumbel_st", same.unsqueeze(1), 0.7)
    torch.testing.assert_close(found.squeeze(1), vectors.grad, atol=1e-5, rtol=1e-4)


def test_the_relaxed_gumbel_gradient_is_the_slope_of_the_relaxed_loss(problems):
    exact, tau, step = doubled(problems), 0.5, 1e-6
    fixed = noise(3).double()
    found = estimates(exact, "gumbel", fixed, tau)

    def relaxed_loss(vectors):
        weights = F.softmax((exact.log_probabilities(vectors) + fixed) / tau, -1)
        return exact.loss((weights.unsqueeze(-1) * exact.codes).sum(-2))

    for axis in range(D):
        move = torch.zeros(D, dtype=torch.float64)
        move[axis] = step
        slope = (relaxed_loss(exact.vectors + move) - relaxed_loss(exact.vectors - move)) / (2 * step)
        torch.testing.assert_close(found[..., axis], slope, atol=1e-6, rtol=1e-5)


def test_drawn_codes_have_their_probabilities(problems):
    draws = 20_000
    chosen = (problems.log_probabilities(problems.vectors) + noise(draws)).argmax(-1)
    frequency = F.one_hot(chosen, K).double().mean(0)
    shares = problems.log_probabilities(problems.vectors).exp().double()
    assert ((frequency - shares).abs() < 5 * (shares * (1 - shares) / draws).sqrt() + 1e-4).all()


@pytest.mark.parametrize("estimator", ["reinforce", "ste", "rotation_trick"])
def test_measured_bias_variance_and_cosine_are_the_enumerated_ones(problems, estimator):
    found = measure(problems, estimator, 20_000, 0)
    truth, mean = problems.true_gradient().double(), enumerated(problems, estimator).double()
    shares = problems.log_probabilities(problems.vectors).exp().double()
    each = estimates(problems, estimator, noise_for_every_code()).double()
    variance = (shares.t() * each.square().sum(-1)).sum(0) - mean.square().sum(-1)
    torch.testing.assert_close(found.variance, variance, rtol=0.1, atol=1e-3)
    if estimator == "reinforce":
        assert (found.bias.abs() < 4 * found.bias_error).all()
        return
    assert ((found.bias - (mean - truth).norm(dim=1)).abs() < 5 * found.bias_error + 1e-3).all()
    torch.testing.assert_close(found.cosine, F.cosine_similarity(mean, truth, dim=1), atol=0.03, rtol=0)
    expected = (shares.t() * F.cosine_similarity(each, truth.expand_as(each), dim=2)).sum(0)
    torch.testing.assert_close(found.draw_cosine, expected, atol=0.03, rtol=0)


def test_the_two_halves_of_the_draws_share_no_noise(problems):
    # Equal halves would err in the same direction, and every estimator would look biased.
    found = [measure(problems, "reinforce", 200, seed) for seed in range(20)]
    mean = torch.stack([one.bias for one in found]).mean()
    error = torch.stack([one.bias_error for one in found]).square().mean().sqrt()
    assert abs(float(mean)) < 4 * float(error) / math.sqrt(20 * P)


def test_what_does_not_exist_is_refused(problems):
    with pytest.raises(GradientBiasError, match="expected one of ste, gumbel"):
        estimates(problems, "straight", noise(2))
    with pytest.raises(GradientBiasError, match="temperature 0"):
        estimates(problems, "gumbel", noise(2), 0)
