"""Losses against the bound computed by enumeration, gradients, and the distributions of the training draws."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from components.diffusion.losses import (
    draw_coupled,
    draw_noised,
    noisy_cross_entropy,
    posterior_divergence,
    step_weights,
)
from components.diffusion.noise import AbsorbingNoise, UniformNoise
from components.diffusion.reparameterized import posterior
from components.diffusion.schedules import CosineSchedule, DiffusionError, Grid, LinearSchedule


def random_network(tokens: int, vocabulary: int, predicted: int):
    """A table of logits for every noisy sequence, (V,) * N + (N, V')."""
    shape = (vocabulary,) * tokens + (tokens, predicted)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sequences(tokens: int, vocabulary: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(vocabulary), repeat=tokens)))


def forward_probability(x_t, x_0, alpha, noise):
    return noise.transition(float(alpha))[x_0, x_t].prod(-1)


def test_with_weight_one_over_t_the_summed_loss_is_the_enumerated_bound_of_absorbing_noise():
    # N = 3 tokens of V = 3 (two words and the mask), T = 4.
    noise, grid = AbsorbingNoise(3, 2), Grid(LinearSchedule(), 4)
    network = random_network(3, 3, 2)
    x_0, every = torch.tensor([[0, 1, 1]]), sequences(3, 3)
    weights = step_weights("variational", grid)
    assert weights[1:].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    loss = bound = 0.0
    for t in range(1, 5):
        reached = forward_probability(every, x_0, grid.alphas[t], noise)
        for x_t, chance in zip(every[reached > 0], reached[reached > 0], strict=True):
            logits = network[tuple(x_t)][None]
            mean = noisy_cross_entropy(logits, x_0, x_t[None], weights[t][None])
            loss += chance * 3 * mean
            # KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) over whole sequences; p has x_0 predicted token by token.
            truth = posterior(x_t[None], x_0, grid.alphas[t - 1], grid.alphas[t], noise)[0]
            f = logits[0].softmax(-1)
            model = torch.zeros(3, 3, dtype=torch.float64)
            stay = (1 - grid.alphas[t - 1]) / (1 - grid.alphas[t])
            for n in range(3):
                if x_t[n] == 2:
                    model[n, :2], model[n, 2] = (1 - stay) * f[n], stay
                else:
                    model[n, x_t[n]] = 1
            for x_s in every:
                q, p = (each[torch.arange(3), x_s].prod() for each in (truth, model))
                if q > 0:
                    bound += chance * q * (q.log() - p.log())
    assert float(loss) == pytest.approx(float(bound), rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "schedule"), [(UniformNoise(3), CosineSchedule()), (AbsorbingNoise(3, 2), LinearSchedule())]
)
def test_the_divergence_of_a_step_is_the_sum_over_all_values(noise, schedule):
    grid, predicted = Grid(schedule, 5), 3 if isinstance(noise, UniformNoise) else 2
    logits = torch.randn(1, 4, predicted, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x_0, x_t = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 2, 2, 1]])
    for s, t in ((3, 4), (0, 2)):
        alpha_s, alpha_t = grid.alphas[s][None, None], grid.alphas[t][None, None]
        f = torch.nn.functional.pad(logits.softmax(-1), (0, 3 - predicted))
        jump = noise.transition(float(alpha_t / alpha_s))
        expected = []
        for n in range(4):
            model = jump[:, x_t[0, n]] * (float(alpha_s) * f[0, n] + (1 - float(alpha_s)) * noise.distribution)
            truth = jump[:, x_t[0, n]] * noise.transition(float(alpha_s))[x_0[0, n]]
            model, truth = model / model.sum(), truth / truth.sum()
            expected.append(sum(q * math.log(q / p) for q, p in zip(truth.tolist(), model.tolist(), strict=True) if q))
        got = posterior_divergence(logits, x_0, x_t, alpha_s, alpha_t, noise)[0]
        assert got.tolist() == pytest.approx(expected, abs=1e-12)


def test_clean_tokens_and_padding_have_no_gradient_and_the_mean_is_over_counted_tokens():
    logits = torch.randn(2, 4, 3, requires_grad=True)
    x_0 = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 0]])
    x_t = torch.tensor([[0, 3, 3, 0], [3, 1, 3, 3]])
    counted = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    weights = torch.tensor([0.5, 2.0])
    loss = noisy_cross_entropy(logits, x_0, x_t, weights, counted=counted)
    loss.backward()
    moved = logits.grad.abs().sum(-1) > 0
    assert moved.tolist() == [[False, True, True, False], [True, False, False, False]]
    nats = -logits.log_softmax(-1)
    expected = (0.5 * (nats[0, 1, 1] + nats[0, 2, 2]) + 2 * nats[1, 0, 1]) / 6
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_spreads_the_label_over_the_vocabulary():
    logits = torch.randn(1, 1, 4)
    got = noisy_cross_entropy(logits, torch.tensor([[2]]), torch.tensor([[4]]), torch.ones(1), label_smoothing=0.1)
    nats = -logits[0, 0].log_softmax(-1)
    torch.testing.assert_close(got, 0.9 * nats[2] + 0.1 * nats.mean())


@pytest.mark.parametrize("noise", [AbsorbingNoise(4, 3), UniformNoise(4, [3])])
def test_both_of_a_coupled_pair_have_the_forward_marginal_and_masks_only_fall(noise):
    grid = Grid(LinearSchedule(), 3)
    x_0 = torch.full((60_000, 2), 1)
    noisable = torch.tensor([True, False]).expand(x_0.shape)
    pair = draw_coupled(x_0, grid, noise, torch.Generator().manual_seed(0), noisable=noisable)
    later, earlier = pair
    assert bool((later.steps >= earlier.steps).all())
    # The pair is one draw of two uniform times, sorted.
    counts = torch.stack([later.steps, earlier.steps]).unique(dim=1, return_counts=True)[1]
    expected = torch.tensor([1, 2, 1, 2, 2, 1]).double() / 9 * len(x_0)
    assert chisquare(counts, expected).pvalue > 0.01
    for noised in pair:
        assert bool((noised.tokens[:, 1] == 1).all())
        for t in range(1, 4):
            drawn = noised.tokens[noised.steps == t, 0].bincount(minlength=4)
            wanted = noise.transition(float(grid.alphas[t]))[1] * drawn.sum()
            assert drawn[wanted == 0].sum() == 0
            if (wanted > 0).sum() > 1:
                assert chisquare(drawn[wanted > 0], wanted[wanted > 0]).pvalue > 0.005
    if isinstance(noise, AbsorbingNoise):
        apart = later.steps > earlier.steps
        was_clean = later.tokens[apart, 0] == 1
        assert bool((earlier.tokens[apart, 0][was_clean] == 1).all())
        both = (later.steps == 3) & (earlier.steps == 1)
        stayed = (earlier.tokens[both, 0] == 3).double().mean()
        assert float(stayed) == pytest.approx(1 / 3, abs=0.015)  # t2 / t1


def test_single_draws_have_every_step_equally_often():
    drawn = draw_noised(
        torch.zeros(40_000, 1).long(), Grid(LinearSchedule(), 4), AbsorbingNoise(2, 1), torch.Generator().manual_seed(1)
    )
    assert chisquare(drawn.steps.bincount()[1:]).pvalue > 0.01
    assert float((drawn.tokens[drawn.steps == 2] == 1).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_weights_are_those_of_the_paper():
    grid = Grid(LinearSchedule(), 5)
    assert step_weights("linear", grid).tolist() == pytest.approx([0, 1, 0.8, 0.6, 0.4, 0.2])
    assert step_weights("constant", grid).tolist() == [0, 1, 1, 1, 1, 1]
    with pytest.raises(DiffusionError, match="weighting"):
        step_weights("quadratic", grid)
