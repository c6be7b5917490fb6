"""Gumbel-softmax quantization: the law of its samples, its gradients and its temperature."""

import math

import pytest
import torch
import torch.nn.functional as F

from components.quantizers.gumbel import GumbelQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(**options) -> GumbelQuantizer:
    torch.manual_seed(0)
    return GumbelQuantizer(4, 3, **options)


def test_codes_are_drawn_with_the_probabilities_of_the_softmax():
    gumbel = quantizer().train()
    vector = torch.tensor([0.5, -1.0, 2.0])
    expected = F.softmax(gumbel.to_logits(vector), -1)
    drawn = torch.bincount(gumbel(vector.expand(40_000, 3)).indices, minlength=4) / 40_000
    torch.testing.assert_close(drawn, expected.detach(), atol=0.01, rtol=0)


def test_evaluation_takes_the_likeliest_code_and_draws_nothing():
    gumbel = quantizer().eval()
    vectors = torch.randn(50, 3, generator=generator())
    state = torch.get_rng_state()
    assert torch.equal(gumbel(vectors).indices, gumbel.to_logits(vectors).argmax(-1))
    assert torch.equal(torch.get_rng_state(), state)


def test_training_gradients_are_those_of_the_hard_codes_and_the_relaxed_choice():
    gumbel = quantizer(prior_weight=0.0).train()
    vectors = torch.randn(6, 3, generator=generator())
    upstream = torch.randn(6, 3, generator=generator(1))
    torch.manual_seed(5)
    (gumbel(vectors).values * upstream).sum().backward()
    mine = {name: parameter.grad.clone() for name, parameter in gumbel.named_parameters()}
    gumbel.zero_grad()
    # The published form: a one-hot vector that carries the gradient of the relaxation, times the codes.
    torch.manual_seed(5)
    logits = gumbel.to_logits(vectors)
    one_hot = F.gumbel_softmax(logits, tau=float(gumbel.temperature), hard=True)
    ((one_hot @ gumbel.codes) * upstream).sum().backward()
    for name, parameter in gumbel.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad)


def test_the_loss_is_the_divergence_from_a_uniform_choice():
    gumbel = quantizer(prior_weight=0.5)
    vectors = torch.randn(30, 3, generator=generator())
    entropy = torch.distributions.Categorical(logits=gumbel.to_logits(vectors)).entropy()
    torch.testing.assert_close(gumbel(vectors).loss, 0.5 * (math.log(4) - entropy).mean())


def test_the_temperature_falls_geometrically_and_stays_at_its_end():
    gumbel = quantizer(start_temperature=1.0, end_temperature=0.1, anneal_steps=10)
    course = [float(gumbel.temperature)]
    for step in range(12):
        gumbel.after_step(step, generator())
        course.append(float(gumbel.temperature))
    assert course == pytest.approx([10 ** -(min(step, 10) / 10) for step in range(13)])


def test_a_lower_temperature_brings_the_relaxed_choice_to_the_hard_one():
    vectors = torch.randn(2000, 3, generator=generator())
    distances = []
    for temperature in (1.0, 0.3, 0.05):
        gumbel = quantizer().train()
        gumbel.temperature.fill_(temperature)
        torch.manual_seed(1)
        hard = gumbel(vectors).values
        torch.manual_seed(1)
        logits = gumbel.to_logits(vectors)
        soft = F.gumbel_softmax(logits, tau=temperature) @ gumbel.codes
        distances.append(float((hard - soft).detach().square().mean()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.1 * distances[0]


def test_the_encoder_learns_to_choose_a_code_that_serves_the_reconstruction():
    gumbel = quantizer(anneal_steps=80)
    vectors = torch.nn.Parameter(torch.randn(64, 3, generator=generator()))
    optimiser = torch.optim.Adam([vectors], lr=0.1)
    target = gumbel.codes.detach()[torch.arange(64) % 4]
    course = []
    for step in range(80):
        torch.manual_seed(step)
        error = (gumbel(vectors).values - target).square().sum(1).mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        gumbel.after_step(step, generator())
        course.append(float(error.detach()))
    assert float((gumbel.eval()(vectors).values - target).detach().square().sum(1).mean()) < 0.2 * course[0]
