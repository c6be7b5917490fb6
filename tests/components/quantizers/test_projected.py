"""Linear maps around a quantizer: the base's codes, gradients to both maps, and nothing where widths agree."""

import copy

import pytest
import torch

from components.bases import construct, specification
from components.quantizers.projected import ProjectedQuantizer, build, unprojected
from components.quantizers.quantized import QuantizerError

W = 6
BASES = {
    "fsq": specification("components.quantizers.fsq", levels=[8, 5, 5]),
    "lfq": specification("components.quantizers.lfq", code_dim=9),
    "rvq": specification(
        "components.quantizers.rvq", codebook_size=8, code_dim=4, codebooks=3, code_ema_decay=0.9, restart_every=2
    ),
    "gumbel": specification("components.quantizers.gumbel", codebook_size=8, code_dim=3),
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=BASES.values(), ids=BASES.keys())
def projected(request) -> ProjectedQuantizer:
    torch.manual_seed(0)
    return construct(specification("components.quantizers.projected", base=request.param, width=W))


def test_it_is_the_base_between_two_affine_maps(projected):
    vectors = draw(5, 3, W)
    projected.eval()
    inside = vectors @ projected.inward.weight.T + projected.inward.bias
    expected = projected.base(inside)
    found = projected(vectors)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(
        found.values, expected.values @ projected.outward.weight.T + projected.outward.bias, atol=1e-6, rtol=1e-5
    )
    assert torch.equal(found.loss, expected.loss)
    assert found.values.shape == vectors.shape


def test_decoded_indices_are_the_values(projected):
    for mode in (True, False):
        result = projected.train(mode)(draw(7, 4, W))
        torch.testing.assert_close(projected.decode(result.indices), result.values, atol=1e-6, rtol=1e-5)


def test_sizes_are_the_bases_and_the_width_is_outside(projected):
    assert projected.code_dim == W
    assert projected.codebook_sizes == projected.base.codebook_sizes
    assert projected.bits_per_vector == projected.base.bits_per_vector
    assert projected.indices_have_an_axis == projected.base.indices_have_an_axis
    assert unprojected(projected) is projected.base
    with pytest.raises(QuantizerError, match=rf"\(\.\.\., {W}\)"):
        projected(draw(2, projected.base.code_dim))


def test_both_maps_learn_from_a_reconstruction(projected):
    vectors = draw(20, W)
    (projected(vectors).values - vectors).square().sum().backward()
    assert projected.inward.weight.grad.abs().sum() > 0
    assert projected.outward.weight.grad.abs().sum() > 0


def test_hooks_reach_the_base():
    torch.manual_seed(0)
    projected = construct(specification("components.quantizers.projected", base=BASES["rvq"], width=W))
    alone = copy.deepcopy(projected)
    vectors = draw(60, W)
    projected.start_from(vectors, torch.Generator().manual_seed(1))
    alone.base.start_from(alone.inward(vectors), torch.Generator().manual_seed(1))
    for step in range(2):
        projected.train()(vectors)
        alone.train()(vectors)
        projected.after_step(step, torch.Generator().manual_seed(step))
        alone.base.after_step(step, torch.Generator().manual_seed(step))
    for name, tensor in projected.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


def test_a_quantizer_of_the_right_width_stays_as_it_is():
    base = construct(BASES["rvq"])
    assert build(base, base.code_dim) is base
    assert unprojected(base) is base
    assert isinstance(build(base, base.code_dim + 1), ProjectedQuantizer)
