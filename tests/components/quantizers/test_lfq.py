"""Lookup-free quantization: signs, and a loss that equals its definition by enumeration."""

import itertools

import pytest
import torch

from components.quantizers.lfq import LookupFreeQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_code(bits: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)))


def test_the_code_is_the_nearest_of_all_sign_vectors():
    lfq = LookupFreeQuantizer(6)
    vectors = torch.randn(50, 6, generator=generator())
    nearest = every_code(6)[torch.cdist(vectors, every_code(6)).argmin(1)]
    assert torch.equal(lfq(vectors).values, nearest)


def test_all_2_to_the_d_codes_come_back_from_their_indices():
    lfq = LookupFreeQuantizer(8)
    codes = lfq.decode(torch.arange(256))
    assert len(codes.unique(dim=0)) == 256
    assert torch.equal(lfq(codes * 0.3).indices, torch.arange(256))
    assert lfq.decode(torch.tensor(1)).tolist() == [1.0] + [-1.0] * 7


def test_zero_has_a_sign():
    assert LookupFreeQuantizer(3)(torch.zeros(3)).values.tolist() == [-1.0] * 3


def test_indices_hold_up_to_62_bits():
    lfq = LookupFreeQuantizer(62)
    result = lfq(torch.randn(20, 62, generator=generator()))
    assert torch.equal(lfq.decode(result.indices), result.values)
    assert torch.equal(lfq.digits(result.indices), (result.values > 0).long())


@pytest.mark.parametrize("temperature", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("bits", [2, 8])
def test_the_loss_is_its_definition_over_all_codes_but_for_the_entropy_of_the_batch(bits, temperature):
    lfq = LookupFreeQuantizer(bits, entropy_weight=0.3, commitment_weight=0.5, entropy_temperature=temperature)
    vectors = torch.randn(64, bits, generator=generator()).double()
    codes = every_code(bits).double()
    shares = (-torch.cdist(vectors, codes).square() / temperature).softmax(1)
    per_vector = torch.special.entr(shares).sum(1).mean()
    frequency = torch.stack([shares[:, codes[:, bit] > 0].sum(1).mean() for bit in range(bits)])
    of_batch = (torch.special.entr(frequency) + torch.special.entr(1 - frequency)).sum()
    commitment = torch.cdist(vectors, codes).min(1).values.square().mean()
    expected = 0.3 * (per_vector - of_batch) + 0.5 * commitment
    torch.testing.assert_close(lfq(vectors).loss.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_entropy_loss_spreads_collapsed_vectors_over_both_signs_and_makes_them_decide():
    lfq = LookupFreeQuantizer(4, entropy_weight=1.0, commitment_weight=0.0, entropy_temperature=4.0)
    vectors = (torch.randn(200, 4, generator=generator()) * 0.1 + 0.3).requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=0.05)
    before = len(lfq(vectors).indices.unique())
    for _ in range(100):
        optimiser.zero_grad()
        lfq(vectors).loss.backward()
        optimiser.step()
    ones = (vectors > 0).float().mean(0)
    assert before < 4
    assert len(lfq(vectors).indices.unique()) >= 4
    assert float((ones - 0.5).abs().max()) < 0.2
    assert float(vectors.detach().abs().mean()) > 1


def test_without_entropy_weight_only_the_commitment_is_left():
    lfq = LookupFreeQuantizer(5, entropy_weight=0.0)
    vectors = torch.randn(30, 5, generator=generator())
    torch.testing.assert_close(lfq(vectors).loss, 0.25 * (vectors.abs() - 1).square().sum(1).mean())
