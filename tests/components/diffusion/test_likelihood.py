"""Likelihood bounds: estimators against the bound summed over all masks, and exact cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from components.diffusion.likelihood import BoundEstimator
from components.diffusion.noise import AbsorbingNoise
from components.diffusion.schedules import CosineSchedule, DiffusionError, LinearSchedule

MASK = 3
NOISE = AbsorbingNoise(4, MASK)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(length: int, seed: int = 0):
    """-ln p of the true token of each position as a function of the noisy sequence, by a table."""
    table = torch.rand(4**length, length, generator=seeded(seed), dtype=torch.float64) * 3
    powers = torch.tensor([4**place for place in range(length)])

    def nats(noisy, masked, times):
        return table[noisy @ powers]

    return nats


def cost(nats, tokens, masked) -> float:
    noisy = tokens.masked_fill(masked, MASK)[None]
    return float(nats(noisy, masked[None], None)[0][masked].sum())


def exact(nats, tokens, places) -> float:
    """The bound by quadrature over time, every set of masks among `places` summed."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    times, total = (nodes + 1) / 2, 0.0
    for size in range(1, len(places) + 1):
        for chosen in itertools.combinations(places, size):
            masked = torch.zeros(len(tokens), dtype=torch.bool)
            masked[list(chosen)] = True
            # On the linear schedule: integral of t^(j - 1) (1 - t)^(n - j) over [0, 1].
            chance = (weights / 2 * times ** (size - 1) * (1 - times) ** (len(places) - size)).sum()
            total += chance * cost(nats, tokens, masked)
    return total


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
@pytest.mark.parametrize("draw", ["uniform", "antithetic", "stratified"])
def test_the_mean_over_counts_is_the_integral_over_time(schedule, draw):
    tokens, nats = torch.tensor([[0, 1, 2, 1]]), network(4)
    estimator = BoundEstimator(over="count", draw=draw, draws=4, repeats=2)
    bound = estimator.estimate(nats, tokens.expand(4000, -1), NOISE, schedule, seeded())
    expected = exact(nats, tokens[0], [0, 1, 2, 3])
    error = float(bound.nats.std()) / math.sqrt(4000)
    assert float(bound.nats.mean()) == pytest.approx(expected, abs=4 * error)
    assert bound.draws == 8
    # The variance that each estimate reports is, on average, that of the estimates.
    assert float(bound.variance.mean()) == pytest.approx(float(bound.nats.var()), rel=0.1)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
def test_the_mean_over_times_agrees_and_its_spread_is_larger(schedule):
    tokens, nats = torch.tensor([[0, 1, 2, 1]]), network(4)
    spread = {}
    for over in ("time", "count"):
        estimator = BoundEstimator(over=over, draw="stratified", draws=16, repeats=2)
        bound = estimator.estimate(nats, tokens.expand(3000, -1), NOISE, schedule, seeded(1))
        spread[over] = float(bound.nats.std())
        error = spread[over] / math.sqrt(3000)
        assert float(bound.nats.mean()) == pytest.approx(exact(nats, tokens[0], [0, 1, 2, 3]), abs=5 * error)
    assert spread["time"] > 2 * spread["count"]


def test_stratified_draws_have_less_variance_than_independent_ones():
    tokens, nats = torch.tensor([[0, 1, 2, 1]]).expand(2000, -1), network(4)
    spread = [
        float(BoundEstimator(draw=draw, draws=4).estimate(nats, tokens, NOISE, LinearSchedule(), seeded()).nats.var())
        for draw in ("uniform", "stratified")
    ]
    assert spread[1] < 0.8 * spread[0]


def test_a_prompt_and_padding_are_never_masked_and_count_for_nothing():
    tokens, nats = torch.tensor([[0, 1, 2, 1]]), network(4)
    predicted = torch.tensor([[False, True, True, False]])
    seen = []

    def watching(noisy, masked, times):
        seen.append(masked)
        return nats(noisy, masked, times)

    bound = BoundEstimator(draws=4).estimate(
        watching, tokens.expand(3000, -1), NOISE, LinearSchedule(), seeded(), predicted=predicted.expand(3000, -1)
    )
    assert not any(bool(masked[:, [0, 3]].any()) for masked in seen)
    error = float(bound.nats.std()) / math.sqrt(3000)
    assert float(bound.nats.mean()) == pytest.approx(exact(nats, tokens[0], [1, 2]), abs=4 * error)
    assert bound.tokens.unique().tolist() == [2]
    per_token, variance = bound.per_token()
    assert per_token == pytest.approx(float(bound.nats.sum()) / 6000)
    assert variance == pytest.approx(float(bound.variance.sum()) / 6000**2)


def test_blocks_of_one_token_give_the_same_value_in_every_draw():
    tokens, nats = torch.tensor([[0, 1, 2, 1]]), network(4)
    bound = BoundEstimator(block=1, draws=2, draw="uniform").estimate(nats, tokens, NOISE, LinearSchedule(), seeded())
    assert float(bound.nats) == pytest.approx(cost(nats, tokens[0], torch.ones(4).bool()), abs=1e-12)
    assert float(bound.variance) == pytest.approx(0, abs=1e-24)


def test_each_block_has_a_count_of_its_own():
    tokens, nats = torch.tensor([[0, 1, 2, 1]]).expand(5000, -1), network(4)
    counts = []

    def watching(noisy, masked, times):
        counts.append(masked.view(5000, 2, 2).sum(-1))
        return nats(noisy, masked, times)

    BoundEstimator(block=2, draws=2).estimate(watching, tokens, NOISE, LinearSchedule(), seeded())
    first = counts[0]
    assert first.unique().tolist() == [1, 2]
    pairs = (first[:, 0] * 2 + first[:, 1]).bincount()[3:]
    assert bool((pairs.double() / 5000 - 0.25).abs().max() < 0.03)


def test_places_of_one_repeat_cover_every_part_or_mirror_each_other():
    stratified = BoundEstimator(draws=8).places((100,), seeded())
    assert torch.equal((stratified * 8).long().sort(0).values, torch.arange(8)[:, None].expand(8, 100))
    mirrored = BoundEstimator(draw="antithetic", draws=4).places((100,), seeded())
    torch.testing.assert_close(mirrored[:2] + mirrored[2:], torch.ones(2, 100).double())


def test_estimators_without_meaning_are_refused():
    for options, message in (
        ({"over": "step"}, "over is"),
        ({"draw": "sobol"}, "draw is"),
        ({"draws": 0}, "at least 1 and 2"),
        ({"repeats": 1}, "at least 1 and 2"),
        ({"draw": "antithetic", "draws": 3}, "come in pairs"),
    ):
        with pytest.raises(DiffusionError, match=message):
            BoundEstimator(**options)
    with pytest.raises(DiffusionError, match="do not divide"):
        BoundEstimator(block=3).estimate(network(4), torch.zeros(1, 4).long(), NOISE, LinearSchedule())
