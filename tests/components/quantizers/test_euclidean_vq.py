"""Vector quantization in squared distance against its equations."""

import pytest
import torch

from components.quantizers.euclidean_vq import EuclideanQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(**options) -> EuclideanQuantizer:
    torch.manual_seed(0)
    return EuclideanQuantizer(16, 4, **options)


def test_every_vector_gets_the_nearest_code():
    vq = quantizer()
    vectors = torch.randn(50, 4, generator=generator())
    distances = (vectors[:, None] - vq.codebook.weight[None]).square().sum(-1)
    assert torch.equal(vq(vectors).indices, distances.argmin(1))


def test_norms_count_unlike_for_unit_norm_codes():
    vq = quantizer()
    vq.codebook.weight.data[:2] = torch.tensor([[1.0, 0, 0, 0], [10.0, 0, 0, 0]])
    vectors = torch.tensor([[1.2, 0, 0, 0], [8.0, 0, 0, 0]])
    assert vq(vectors).indices.tolist() == [0, 1]


@pytest.mark.parametrize(("options", "factor"), [({}, 1.25), ({"code_ema_decay": 0.9}, 0.25),
                                                 ({"commitment_weight": 0.5}, 1.5)])  # fmt: skip
def test_the_loss_is_the_squared_error_for_codes_and_commitment(options, factor):
    vq = quantizer(**options)
    vectors = torch.randn(9, 4, generator=generator())
    nearest = torch.cdist(vectors.double(), vq.codebook.weight.double()).min(1).values.square().mean()
    torch.testing.assert_close(vq(vectors).loss.double(), factor * nearest, rtol=1e-5, atol=0)


def test_each_term_of_the_loss_moves_only_its_own_side():
    vectors = torch.randn(9, 4, generator=generator()).requires_grad_()
    without = quantizer(commitment_weight=0.0)
    result = without(vectors)
    result.loss.backward()
    assert float(vectors.grad.abs().sum()) == 0
    expected = torch.zeros(16, 4)
    error = without.codebook.weight.detach()[result.indices] - vectors.detach()
    expected.index_add_(0, result.indices, 2 * error / 9)
    torch.testing.assert_close(without.codebook.weight.grad, expected)
    moving = quantizer(code_ema_decay=0.9)
    result = moving(vectors)
    result.loss.backward()
    torch.testing.assert_close(vectors.grad, 0.5 * (vectors.detach() - result.values.detach()) / 9)
    assert not list(moving.parameters())


@pytest.mark.parametrize("options", [{}, {"code_ema_decay": 0.8, "restart_every": 4}])
def test_codes_come_to_cover_the_data(options):
    vq = quantizer(**options)
    optimiser = torch.optim.Adam(vq.parameters(), lr=0.05) if not options else None
    data = torch.randn(256, 4, generator=generator())
    first = float((data - vq(data).values).square().sum(1).mean())
    for step in range(60):
        loss = vq(data.requires_grad_()).loss
        if optimiser:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        vq.after_step(step, generator(step))
    assert float((data - vq(data).values).detach().square().sum(1).mean()) < 0.75 * first
