"""How many tokens a training step keeps."""

import pytest
import torch
from scipy.stats import chisquare

from components.compression.tail_drop import DropLawError, draw_kept, keep_prefix
from components.training.determinism import derive_seed

DRAWS = 10_000


def draws(tokens: int, law: str) -> torch.Tensor:
    generator = torch.Generator()
    kept = []
    for step in range(DRAWS):
        # As the training loop does: one generator, seeded anew in every step.
        generator.manual_seed(derive_seed(0, step, 0))
        kept.append(draw_kept(tokens, law, generator))
    return torch.tensor(kept)


@pytest.mark.parametrize("tokens", [2, 32])
def test_uniform_drop_is_uniform_from_one_token_to_all(tokens):
    counts = torch.bincount(draws(tokens, "uniform"), minlength=tokens + 1)
    assert counts[0] == 0
    assert len(counts) == tokens + 1
    assert counts[1] > 0
    assert counts[tokens] > 0
    assert chisquare(counts[1:].numpy()).pvalue > 0.01


def test_powers_of_two_are_equally_likely_and_include_the_full_length():
    values, counts = draws(24, "powers_of_two").unique(return_counts=True)
    assert values.tolist() == [1, 2, 4, 8, 16, 24]
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_no_drop_keeps_everything_and_leaves_the_random_numbers_alone():
    generator = torch.Generator().manual_seed(1)
    assert draw_kept(9, "none", generator) == 9
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_the_rest_is_removed_not_zeroed():
    values = torch.arange(24.0).view(2, 4, 3)
    assert keep_prefix(values, 2).shape == (2, 2, 3)
    assert torch.equal(keep_prefix(values, 2), values[:, :2])


@pytest.mark.parametrize("kept", [0, 5])
def test_a_length_outside_the_sequence_is_refused(kept):
    with pytest.raises(DropLawError, match="1 to 4"):
        keep_prefix(torch.zeros(1, 4, 2), kept)


def test_an_unknown_law_is_refused():
    with pytest.raises(DropLawError, match="powers_of_two"):
        draw_kept(4, "sometimes", torch.Generator())
