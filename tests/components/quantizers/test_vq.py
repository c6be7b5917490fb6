"""The vector quantizer against brute force, its equations and an interrupted training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from components.quantizers import vq
from components.quantizers.vq import CodebookError, VectorQuantizer, directional_kmeans
from components.training.loop import Optimisation, fit


def random_quantizer(size=16, dim=4, **options) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(size, dim, **options)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_values_are_the_codes_bit_for_bit_in_training_and_evaluation():
    quantizer = random_quantizer()
    vectors = torch.randn(3, 5, 4, generator=generator())
    for mode in (True, False):
        result = quantizer.train(mode)(vectors)
        assert torch.equal(result.values, quantizer.decode(result.indices))


def test_gradient_at_the_normalised_vector_is_exactly_that_at_the_quantized_one():
    quantizer = random_quantizer(commitment_weight=0.0, code_ema_decay=0.9)
    unit = F.normalize(torch.randn(6, 4, generator=generator(), dtype=torch.float32), dim=-1)
    weights = torch.randn(6, 4, generator=generator(1))
    chosen = quantizer(unit).values.detach()
    at_code = chosen.clone().requires_grad_()
    (at_code.square() * weights).sum().backward()
    # The quantizer normalises its input again, so the gradient is taken at the normalised vector inside it.
    seen = []
    original = F.normalize

    def normalize(*arguments, **options):
        result = original(*arguments, **options)
        if result.requires_grad:
            result.retain_grad()
            seen.append(result)
        return result

    vq.F.normalize, saved = normalize, vq.F.normalize
    try:
        values = quantizer(unit.requires_grad_()).values
    finally:
        vq.F.normalize = saved
    (values.square() * weights).sum().backward()
    assert torch.equal(seen[0].grad, at_code.grad)


def test_the_loss_is_codebook_plus_a_quarter_of_commitment():
    quantizer = random_quantizer()
    vectors = torch.randn(9, 4, generator=generator())
    unit, codes = F.normalize(vectors, dim=-1), quantizer.codebook
    nearest = torch.cdist(unit, codes).min(1).values.square().mean()
    torch.testing.assert_close(quantizer(vectors).loss, 1.25 * nearest)
    moving = random_quantizer(code_ema_decay=0.9)
    torch.testing.assert_close(moving(vectors).loss, 0.25 * nearest)


def test_each_term_of_the_loss_moves_only_its_own_side():
    vectors = torch.randn(9, 4, generator=generator())
    without = random_quantizer(commitment_weight=0.0)
    inputs = vectors.clone().requires_grad_()
    without(inputs).loss.backward()
    assert torch.equal(inputs.grad, torch.zeros_like(vectors))
    assert without.weight.grad.abs().sum() > 0
    moving = random_quantizer(code_ema_decay=0.9)
    moving(inputs).loss.backward()
    assert inputs.grad.abs().sum() > 0
    assert not list(moving.parameters())


def test_reconstruction_gradient_never_reaches_the_codes():
    quantizer = random_quantizer()
    result = quantizer(torch.randn(9, 4, generator=generator()).requires_grad_())
    result.values.square().sum().backward()
    assert quantizer.weight.grad is None


@pytest.mark.parametrize("decay", [None, 0.8])
def test_codes_are_of_norm_one_at_the_start_and_after_training(decay):
    quantizer = random_quantizer(code_ema_decay=decay, restart_every=2)
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=1.0) if decay is None else None
    quantizer.start_from(torch.randn(50, 4, generator=generator()), generator())
    for step in range(5):
        loss = quantizer(torch.randn(20, 4, generator=generator(step)).requires_grad_()).loss
        loss.backward()
        if optimiser:
            optimiser.step()
        quantizer.after_step(step, generator(step))
        torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(16))


def test_moving_average_follows_its_equation():
    quantizer = random_quantizer(size=5, code_ema_decay=0.7)
    sums = quantizer.codebook.numpy().astype(np.float64).copy()
    for step in range(4):
        vectors = torch.randn(30, 4, generator=generator(step))
        codes = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        unit = F.normalize(vectors, dim=-1).numpy().astype(np.float64)
        nearest = (unit @ codes.T).argmax(1)
        totals = np.stack([unit[nearest == code].sum(0) for code in range(5)])
        sums = 0.7 * sums + 0.3 * totals
        quantizer(vectors)
        quantizer.after_step(step, generator())
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(quantizer.codebook.numpy(), expected, atol=1e-5)


def test_several_passes_of_one_step_count_as_one_batch():
    vectors = torch.randn(30, 4, generator=generator())
    parts, whole = random_quantizer(code_ema_decay=0.7), random_quantizer(code_ema_decay=0.7)
    for part in vectors.split(10):
        parts(part)
    whole(vectors)
    parts.after_step(0, generator())
    whole.after_step(0, generator())
    torch.testing.assert_close(parts.codebook, whole.codebook)


def test_a_code_that_nobody_chooses_keeps_its_direction_forever():
    quantizer = random_quantizer(size=8, code_ema_decay=0.5)
    lonely = quantizer.codebook.clone()
    vectors = lonely[:1].repeat(10, 1)
    for step in range(300):
        quantizer(vectors)
        quantizer.after_step(step, generator())
    torch.testing.assert_close(quantizer.codebook[1:], lonely[1:])


@pytest.mark.parametrize("decay", [None, 0.9])
def test_unused_codes_restart_on_vectors_of_the_batch_and_used_ones_do_not(decay):
    quantizer = random_quantizer(size=32, code_ema_decay=decay, restart_every=3)
    batch = torch.randn(6, 4, generator=generator())
    unit = F.normalize(batch, dim=-1)
    for step in range(3):
        before = quantizer.codebook.detach().clone()
        indices = quantizer(batch).indices
        quantizer.after_step(step, generator(step))
        after = quantizer.codebook.detach()
        unused = torch.ones(32, dtype=torch.bool)
        unused[indices] = False
        if step < 2:
            torch.testing.assert_close(after[unused], before[unused])
    on_a_vector = torch.cdist(after[unused], unit).min(1).values
    assert float(on_a_vector.max()) < 1e-3
    if decay is None:
        assert torch.equal(after[~unused], before[~unused])


def test_forward_changes_no_code():
    quantizer = random_quantizer(code_ema_decay=0.5, restart_every=1)
    before = quantizer.codebook.clone()
    quantizer(torch.randn(40, 4))
    assert torch.equal(quantizer.codebook, before)


def test_kmeans_finds_separated_directions():
    centres = F.normalize(torch.eye(6) + 0.01, dim=-1)
    vectors = F.normalize(centres.repeat(30, 1) + 0.02 * torch.randn(180, 6, generator=generator()), dim=-1)
    found = directional_kmeans(vectors, 6, generator(3), iterations=20)
    hit = (found @ centres.T).max(1)
    assert float(hit.values.min()) > 0.6
    dense = directional_kmeans(vectors, 40, generator(3))
    assert float((dense @ centres.T).max(0).values.min()) > 0.99


def test_more_centres_than_vectors_are_still_all_different():
    vectors = F.normalize(torch.randn(5, 4, generator=generator()), dim=-1)
    centres = directional_kmeans(vectors, 20, generator())
    distances = torch.cdist(centres, centres) + torch.eye(20)
    assert float(distances.min()) > 1e-4
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(20))


def test_a_training_that_is_killed_and_resumed_has_the_same_codes_bit_for_bit(tmp_path):
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(6, 4)
            self.quantizer = VectorQuantizer(32, 4, code_ema_decay=0.9, restart_every=3)

    def train(checkpoint, stop_at):
        torch.manual_seed(0)
        toy = Toy()

        def draw(step, generator):
            if step == stop_at:
                raise KeyboardInterrupt
            return torch.randn(8, 6, generator=generator)

        def loss(toy, batch, _):
            result = toy.quantizer(toy.encoder(batch))
            return (result.values.sum(1) - batch[:, 0]).square().mean() + result.loss, {}

        fit(
            toy, draw, loss, Optimisation(steps=12, learning_rate=1e-2), seed=3, checkpoint=checkpoint,
            checkpoint_seconds=0, log_every=1, after_step=lambda toy, step, g: toy.quantizer.after_step(step, g),
        )  # fmt: skip
        return toy.state_dict()

    straight = train(tmp_path / "one", None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "two", 7)
    resumed = train(tmp_path / "two", None)
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize(("size", "dim"), [(1, 4), (8, 1)])
def test_a_codebook_without_choice_or_direction_is_refused(size, dim):
    with pytest.raises(CodebookError, match="at least 2"):
        VectorQuantizer(size, dim)
