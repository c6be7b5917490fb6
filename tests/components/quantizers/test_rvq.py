"""Residual quantization against a loop of single stages."""

import pytest
import torch

from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.quantized import QuantizerError
from components.quantizers.rvq import ResidualQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(**options) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(8, 4, codebooks=4, **options)


def brute_force(vectors, books):
    residual, indices, errors = vectors.double(), [], []
    for book in books:
        index = (residual[:, None] - book.double()[None]).square().sum(-1).argmin(1)
        residual = residual - book.double()[index]
        indices.append(index)
        errors.append(residual.square().sum(1).mean())
    return torch.stack(indices, 1), errors, residual


def test_greedy_stages_equal_a_loop_and_residuals_are_conserved():
    rvq = quantizer()
    vectors = torch.randn(60, 4, generator=generator())
    indices, _, residual = brute_force(vectors, [book.weight.detach() for book in rvq.codebooks])
    result = rvq(vectors)
    assert torch.equal(result.indices, indices)
    torch.testing.assert_close(result.values.double() + residual, vectors.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("options", "factor"), [({}, 1.25), ({"code_ema_decay": 0.9}, 0.25)])
def test_the_loss_is_the_sum_of_the_stages_errors(options, factor):
    rvq = quantizer(**options)
    vectors = torch.randn(60, 4, generator=generator())
    _, errors, _ = brute_force(vectors, [book.weight.detach() for book in rvq.codebooks])
    torch.testing.assert_close(rvq(vectors).loss.double(), factor * sum(errors), rtol=1e-5, atol=0)


def test_the_commitment_gradient_is_that_of_every_residual():
    rvq = quantizer(code_ema_decay=0.9)
    vectors = torch.randn(10, 4, generator=generator()).requires_grad_()
    result = rvq(vectors)
    result.loss.backward()
    residuals = [vectors.detach() - rvq.decode(result.indices[:, :m]) for m in range(1, 5)]
    torch.testing.assert_close(vectors.grad, 0.25 * 2 * sum(residuals) / 10)


def test_without_commitment_the_loss_moves_codes_only():
    vectors = torch.randn(10, 4, generator=generator()).requires_grad_()
    quantizer(commitment_weight=0.0)(vectors).loss.backward()
    assert float(vectors.grad.abs().sum()) == 0


def test_codes_of_a_stage_learn_from_that_stage_alone():
    rvq = quantizer()
    vectors = torch.randn(10, 4, generator=generator())
    indices = rvq(vectors).indices
    rvq(vectors).loss.backward()
    before = vectors - rvq.decode(indices[:, :2])
    expected = torch.zeros(8, 4)
    expected.index_add_(0, indices[:, 2], 2 * (rvq.codebooks[2].weight.detach()[indices[:, 2]] - before) / 10)
    torch.testing.assert_close(rvq.codebooks[2].weight.grad, expected)


def test_the_first_indices_are_a_coarser_code_and_the_same_whatever_follows():
    rvq = quantizer()
    rvq.start_from(torch.randn(400, 4, generator=generator()), generator())
    data = torch.randn(400, 4, generator=generator())
    whole = rvq(data).indices
    errors = []
    for used in range(1, 5):
        part = rvq(data, used)
        assert torch.equal(part.indices, whole[:, :used])
        assert torch.equal(part.values, rvq.decode(whole[:, :used]))
        errors.append(float((data - part.values).square().sum(1).mean()))
    # Codes are the means of their cells on this very data, so no stage can add error.
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_stages_that_a_step_leaves_out_do_not_learn_in_it():
    rvq = quantizer(code_ema_decay=0.5)
    before = [book.weight.clone() for book in rvq.codebooks]
    rvq(torch.randn(20, 4, generator=generator()), 2)
    rvq.after_step(0, generator())
    moved = [not torch.equal(book.weight, old) for book, old in zip(rvq.codebooks, before, strict=True)]
    assert moved == [True, True, False, False]


def test_one_stage_is_the_vector_quantizer():
    torch.manual_seed(0)
    rvq = ResidualQuantizer(8, 4, codebooks=1)
    torch.manual_seed(0)
    vq = EuclideanQuantizer(8, 4)
    vectors = torch.randn(20, 4, generator=generator())
    one, other = rvq(vectors), vq(vectors)
    assert torch.equal(one.indices.squeeze(-1), other.indices)
    assert torch.equal(one.values, other.values)
    torch.testing.assert_close(one.loss, other.loss)


@pytest.mark.parametrize("used", [0, 5])
def test_stages_that_do_not_exist_cannot_be_used(used):
    with pytest.raises(QuantizerError, match="1 to 4"):
        quantizer()(torch.randn(2, 4), used)


def test_a_prefix_of_no_stage_or_too_many_cannot_be_decoded():
    for width in (0, 5):
        with pytest.raises(QuantizerError, match="or the first of them"):
            quantizer().decode(torch.zeros(2, width, dtype=torch.int64))
