"""Factorised entropies against sums over all 2^D codes."""

import itertools

import pytest
import torch

from components.quantizers.bit_entropy import code_entropies


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_code(bits: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)), dtype=torch.float64)


def by_enumeration(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both entropies of p(c) proportional to exp(l . c / 2), over all codes of +-1."""
    shares = (logits.double() @ every_code(logits.shape[1]).T / 2).softmax(1)
    return torch.special.entr(shares).sum(1).mean(), torch.special.entr(shares.mean(0)).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_the_entropy_per_vector_is_exact(bits, scale):
    logits = torch.randn(40, bits, generator=generator()) * scale
    torch.testing.assert_close(code_entropies(logits).per_vector.double(), by_enumeration(logits)[0])


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_entropy_of_a_batch_is_that_of_independent_bits(bits):
    logits = torch.randn(40, bits, generator=generator()) * 2
    frequency = torch.sigmoid(logits.double()).mean(0)
    signs = every_code(bits)
    product = torch.where(signs > 0, frequency, 1 - frequency).prod(1)
    torch.testing.assert_close(code_entropies(logits).of_batch.double(), torch.special.entr(product).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_entropy_of_a_batch_is_never_below_the_full_form_at_2_to_the_8(seed):
    logits = torch.randn(30, 8, generator=generator(seed)) * 4**seed
    full = by_enumeration(logits)[1]
    approximate = code_entropies(logits).of_batch.double()
    assert approximate >= full - 1e-6
    # Thirty decided vectors can name thirty codes; the approximation sees only eight fair bits.
    assert seed < 3 or approximate > full + 1.5


def test_the_entropy_of_a_batch_is_the_full_form_where_bits_are_independent_within_it():
    # All combinations of three independent levels per bit.
    levels = torch.tensor([-2.0, 0.3, 1.5])
    logits = torch.cartesian_prod(*[levels] * 4)
    torch.testing.assert_close(code_entropies(logits).of_batch.double(), by_enumeration(logits)[1])


def test_decided_bits_have_no_entropy_and_finite_gradients():
    logits = torch.full((6, 4), 1e4).requires_grad_()
    entropies = code_entropies(logits)
    assert entropies.per_vector.item() == 0
    assert entropies.of_batch.item() == pytest.approx(0, abs=1e-4)
    (entropies.per_vector - entropies.of_batch).backward()
    assert bool(logits.grad.isfinite().all())


def test_gradients_are_those_of_the_enumerated_entropy():
    logits = torch.randn(7, 5, generator=generator()).requires_grad_()
    code_entropies(logits).per_vector.backward()
    other = logits.detach().clone().requires_grad_()
    by_enumeration(other)[0].backward()
    torch.testing.assert_close(logits.grad, other.grad, atol=1e-6, rtol=1e-4)
