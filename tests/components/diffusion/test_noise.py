"""The forward process: counted draws against its distribution, and what is never noised."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from components.diffusion.noise import (
    AbsorbingNoise,
    UniformNoise,
    block_times,
    blocks_of,
    choose,
    corrupt,
    mask_blocks,
)
from components.diffusion.schedules import DiffusionError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", [AbsorbingNoise(5, 4), UniformNoise(5, [0, 4])])
def test_draws_have_the_distribution_of_the_transition_and_specials_are_never_noise(noise):
    tokens = torch.full((60_000, 1), 2)
    drawn = corrupt(tokens, 0.3, noise, seeded())
    expected = noise.transition(0.3)[2] * 60_000
    observed = drawn[:, 0].bincount(minlength=5)
    assert observed[expected == 0].sum() == 0
    assert chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 0.01
    assert float(noise.transition(0.3).sum(1).sub(1).abs().max()) < 1e-15
    assert torch.equal(noise.probability(torch.arange(5)), noise.distribution)


def test_what_may_not_be_noised_stays_and_each_token_may_have_its_own_share():
    tokens = torch.arange(4).repeat(2000, 1)
    noisable = torch.tensor([True, True, False, True]).expand(tokens.shape)
    drawn = corrupt(tokens, torch.tensor([1.0, 0.0, 0.0, 0.5]), AbsorbingNoise(5, 4), seeded(), noisable=noisable)
    share = (drawn == 4).double().mean(0)
    assert share[:3].tolist() == [0, 1, 0]
    assert float(share[3]) == pytest.approx(0.5, abs=0.04)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_every_block_that_has_something_to_mask_has_a_mask(seed, blocks, block):
    generator = seeded(seed)
    length = blocks * block
    tokens = torch.randint(3, (6, length), generator=generator)
    noisable = torch.rand(6, length, generator=generator) < 0.6
    times = block_times(6, length, block, generator)
    masked = mask_blocks(tokens, times, AbsorbingNoise(4, 3), block, generator, noisable=noisable) == 3
    assert not bool((masked & ~noisable).any())
    possible, shown = (each.view(6, blocks, block).any(-1) for each in (noisable, masked))
    assert torch.equal(possible, shown)
    assert bool((times.view(6, blocks, block) == times.view(6, blocks, block)[..., :1]).all())


def test_a_block_is_masked_with_its_time_or_again_with_a_uniform_number():
    tokens = torch.zeros(60_000, 3).long()
    masked = mask_blocks(tokens, torch.full((60_000, 3), 0.4), AbsorbingNoise(2, 1), 3, seeded())
    binomial = torch.tensor([0.6**3, 3 * 0.4 * 0.36, 3 * 0.16 * 0.6, 0.064])
    expected = (binomial[1:] + binomial[0] / 3).double() * 60_000
    assert chisquare(masked.sum(1).bincount()[1:], expected * 60_000 / expected.sum()).pvalue > 0.01


def test_sets_of_one_size_are_equally_likely():
    among = torch.tensor([True, True, False, True]).expand(30_000, 4)
    chosen = choose(torch.tensor([2]), among, seeded())
    names = (chosen.long() @ torch.tensor([1, 2, 4, 8])).bincount(minlength=16)
    assert names.nonzero()[:, 0].tolist() == [3, 9, 10]
    assert chisquare(names[[3, 9, 10]]).pvalue > 0.01
    assert torch.equal(choose(torch.tensor([9]), among[:2], seeded()), among[:2])


def test_wrong_vocabularies_and_blocks_are_refused():
    with pytest.raises(DiffusionError, match="vocabulary of 3"):
        AbsorbingNoise(3, 3)
    with pytest.raises(DiffusionError, match="do not divide 10"):
        blocks_of(10, 4)
