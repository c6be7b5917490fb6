"""Binary spherical quantization: corners of a cube in the sphere, bounded error, entropies over all of them."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from components.quantizers.bsq import BinarySphericalQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_code(bits: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits))) / bits**0.5


def test_the_code_is_the_nearest_corner_and_of_norm_one():
    bsq = BinarySphericalQuantizer(6)
    vectors = torch.randn(80, 6, generator=generator())
    values = bsq(vectors).values
    corners = every_code(6)
    nearest = corners[torch.cdist(F.normalize(vectors, dim=-1), corners).argmin(1)]
    torch.testing.assert_close(values, nearest)
    torch.testing.assert_close(values.norm(dim=1), torch.ones(80))


@pytest.mark.parametrize("bits", [2, 5, 12, 40])
def test_the_error_is_bounded_and_the_bound_is_reached_on_an_axis(bits):
    bsq = BinarySphericalQuantizer(bits)
    bound = (2 - 2 / bits**0.5) ** 0.5
    vectors = torch.randn(500, bits, generator=generator())
    # Near the axes errors are largest.
    vectors[:100] = torch.randn(100, bits, generator=generator()) * 1e-3
    vectors[:100, 0] = 1
    error = (F.normalize(vectors, dim=-1) - bsq(vectors).values).norm(dim=1)
    assert float(error.max()) <= bound + 1e-6
    axis = torch.eye(bits)
    torch.testing.assert_close((axis - bsq(axis).values).norm(dim=1), torch.full((bits,), bound))


def test_length_changes_nothing():
    bsq = BinarySphericalQuantizer(5)
    vectors = torch.randn(30, 5, generator=generator())
    one, other = bsq(vectors), bsq(vectors * 17)
    assert torch.equal(one.indices, other.indices)
    torch.testing.assert_close(one.loss, other.loss)


def test_all_2_to_the_d_codes_come_back_from_their_indices():
    bsq = BinarySphericalQuantizer(8)
    codes = bsq.decode(torch.arange(256))
    assert len(codes.unique(dim=0)) == 256
    assert torch.equal(bsq(codes).indices, torch.arange(256))


@pytest.mark.parametrize("inverse_temperature", [2.0, 30.0])
@pytest.mark.parametrize("bits", [2, 8])
def test_the_loss_is_its_definition_over_all_corners_but_for_the_entropy_of_the_batch(bits, inverse_temperature):
    bsq = BinarySphericalQuantizer(bits, entropy_weight=0.3, inverse_temperature=inverse_temperature)
    vectors = torch.randn(64, bits, generator=generator()).double()
    corners = every_code(bits).double()
    shares = (inverse_temperature * F.normalize(vectors, dim=-1) @ corners.T).softmax(1)
    per_vector = torch.special.entr(shares).sum(1).mean()
    frequency = torch.stack([shares[:, corners[:, bit] > 0].sum(1).mean() for bit in range(bits)])
    of_batch = (torch.special.entr(frequency) + torch.special.entr(1 - frequency)).sum()
    torch.testing.assert_close(bsq(vectors).loss.double(), 0.3 * (per_vector - of_batch), rtol=1e-4, atol=1e-5)


def test_without_entropy_weight_there_is_no_loss():
    assert float(BinarySphericalQuantizer(5, entropy_weight=0.0)(torch.randn(3, 5)).loss) == 0
