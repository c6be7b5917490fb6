"""The rotation trick: that it is a rotation, that it is the right one, and what its gradient keeps."""

import pytest
import torch
import torch.nn.functional as F

from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.rotation_trick import RotationTrickQuantizer, rotate_onto

D = 5


def draw(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def jacobian(code: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.jacobian(lambda z: rotate_onto(code, z), vector)


@pytest.mark.parametrize("seed", range(4))
def test_the_map_is_a_rotation_and_a_scale_that_leads_from_the_vector_to_the_code(seed):
    vector, code = draw(seed=seed), draw(seed=seed + 10)
    found = jacobian(code, vector)
    torch.testing.assert_close(found @ vector, code, atol=1e-5, rtol=1e-4)
    rotation = found * (vector.norm() / code.norm())
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(D), atol=1e-5, rtol=1e-4)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-4)


def test_nothing_outside_the_plane_of_vector_and_code_turns():
    vector, code = draw(seed=1), draw(seed=2)
    plane, _ = torch.linalg.qr(torch.stack([vector, code], 1))
    outside = draw(seed=3)
    outside = outside - plane @ (plane.T @ outside)
    rotation = jacobian(code, vector) * (vector.norm() / code.norm())
    torch.testing.assert_close(rotation @ outside, outside, atol=1e-5, rtol=1e-4)


def test_a_gradient_keeps_its_angle_to_the_code_as_one_to_the_vector():
    vectors, codes, upstream = draw(7, seed=4).requires_grad_(), draw(7, seed=5), draw(7, seed=6)
    (rotate_onto(codes, vectors) * upstream).sum().backward()
    torch.testing.assert_close(
        F.cosine_similarity(vectors.grad, vectors.detach()), F.cosine_similarity(upstream, codes), atol=1e-5, rtol=1e-4
    )
    scale = codes.norm(dim=1) / vectors.detach().norm(dim=1)
    torch.testing.assert_close(vectors.grad.norm(dim=1), upstream.norm(dim=1) * scale)


def test_where_vector_and_code_agree_it_is_the_straight_through_gradient():
    vectors = draw(4, seed=7).requires_grad_()
    (rotate_onto(vectors.detach(), vectors) * draw(4, seed=8)).sum().backward()
    torch.testing.assert_close(vectors.grad, draw(4, seed=8), atol=1e-5, rtol=1e-4)


def test_opposite_and_zero_vectors_give_finite_gradients():
    codes = draw(3, seed=9)
    for vectors in (-codes, torch.zeros(3, D)):
        vectors = vectors.clone().requires_grad_()
        values = rotate_onto(codes, vectors)
        assert torch.equal(values, codes)
        values.sum().backward()
        assert vectors.grad.isfinite().all()


def test_codes_indices_and_loss_are_those_of_the_straight_through_quantizer():
    results = []
    for kind in (EuclideanQuantizer, RotationTrickQuantizer):
        torch.manual_seed(0)
        results.append(kind(6, D)(draw(9, seed=3)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
