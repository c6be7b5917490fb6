import pytest
import torch

from components.language.speculative.choices import CoupledSampling, Greedy, Sampling

LOGITS = torch.tensor([1.0, 0.0, -0.5, 2.0], dtype=torch.float64)


def test_greedy_takes_the_likeliest():
    assert Greedy()(torch.stack([LOGITS, -LOGITS]), torch.tensor([0, 1])).argmax(-1).tolist() == [3, 2]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampling_has_the_frequencies_of_the_softmax(temperature):
    count = 40_000
    choose = Sampling(temperature, torch.Generator().manual_seed(0))
    drawn = choose(LOGITS.expand(count, 4), torch.zeros(count, dtype=torch.int64)).argmax(-1).bincount(minlength=4)
    expected = count * (LOGITS / temperature).softmax(0)
    assert bool(((drawn - expected).abs() < 4.5 * expected.sqrt()).all())


def test_coupled_sampling_has_the_same_law_over_positions():
    count = 40_000
    choose = CoupledSampling(0.7, count + 1, 4, seed=3)
    drawn = choose(LOGITS.expand(count, 4), torch.arange(count)).argmax(-1).bincount(minlength=4)
    expected = count * (LOGITS / 0.7).softmax(0)
    assert bool(((drawn - expected).abs() < 4.5 * expected.sqrt()).all())


def test_coupled_noise_belongs_to_the_position_and_the_seed_alone():
    rows = torch.zeros(50, 4)
    one, two, other = (CoupledSampling(0.7, 60, 4, seed)(rows, torch.arange(50)) for seed in (1, 1, 2))
    backwards = CoupledSampling(0.7, 60, 4, 1)(rows, torch.arange(50).flip(0))
    assert torch.equal(one, two)
    assert torch.equal(one, backwards.flip(0))
    assert not torch.equal(one, other)
