"""Block diffusion against what must hold: no leak, cache equals masks, exact bounds, counted calls."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from components.diffusion.block import (
    block_loss,
    block_masks,
    block_nats,
    masked_nats,
    sample_blocks,
    with_prompt,
)
from components.diffusion.likelihood import BoundEstimator
from components.diffusion.noise import AbsorbingNoise
from components.diffusion.schedules import DiffusionError, LinearSchedule
from components.nn.encoder_decoder_block import build

WORDS, MASK, START = 7, 7, 8
NOISE = AbsorbingNoise(9, MASK)
SIZES = {"words": WORDS, "special": 2, "width": 16, "heads": 2, "feed_forward": 24}
NETWORKS = {
    "last_hidden": {"encoder_layers": 3, "decoder_layers": 2},
    "shared_keys": {"layers": 4, "decoder_layers": 2},
    "decoder_only": {"layers": 3},
}


def network(kind: str, context: int = 14):
    torch.manual_seed(3)
    built = build(**SIZES, **NETWORKS[kind], context=context)
    for parameter in built.parameters():
        # Initial weights are so small that attention hardly matters; larger ones make a leak show.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return built.eval()


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(WORDS, (batch, length), generator=torch.Generator().manual_seed(seed))


def half_masked(clean: torch.Tensor) -> torch.Tensor:
    hidden = torch.rand(clean.shape, generator=torch.Generator().manual_seed(9)) < 0.5
    return clean.masked_fill(hidden, MASK)


@pytest.fixture(params=NETWORKS)
def kind(request) -> str:
    return request.param


def test_masks_are_those_written_out_by_hand():
    masks = block_masks(1, 4, 2)
    reading = ["x....", "xxx..", "xxx..", "xxxxx", "xxxxx"]
    denoising = ["x....xx..", "x....xx..", "xxx....xx", "xxx....xx"]
    written = [[sign == "x" for sign in row] for row in reading]
    assert masks.reading.tolist() == written
    assert masks.denoising.tolist() == [[sign == "x" for sign in row] for row in denoising]
    assert masks.doubled.tolist() == [[*row, *[False] * 4] for row in written] + masks.denoising.tolist()


@pytest.mark.parametrize("prompt", [0, 2])
def test_a_block_depends_on_no_clean_token_of_its_own_or_later_blocks(kind, prompt):
    model, block, length = network(kind), 3, 12
    clean, noisy = tokens(1, prompt + length), half_masked(tokens(1, length, 1))
    masks = block_masks(prompt, length, block)
    before = model(clean, noisy, masks)
    for first in range(0, length, block):
        changed = clean.clone()
        changed[:, prompt + first :] = (changed[:, prompt + first :] + 1) % WORDS
        after = model(changed, noisy, masks)
        assert torch.equal(after[:, : first + block], before[:, : first + block])
        if first + block < length:
            assert not torch.allclose(after[:, first + block :], before[:, first + block :])


def test_a_block_depends_on_no_noisy_token_of_other_blocks(kind):
    model, block, length = network(kind), 3, 12
    clean, noisy = tokens(1, 2 + length), half_masked(tokens(1, length, 1))
    masks = block_masks(2, length, block)
    before = model(clean, noisy, masks)
    for first in range(0, length, block):
        changed = (noisy + 1) % WORDS
        own = slice(first, first + block)
        changed[:, own] = noisy[:, own]
        after = model(clean, changed, masks)
        assert torch.equal(after[:, own], before[:, own])


def test_a_mask_that_is_not_strict_lets_the_answer_leak(kind):
    """The trap that the tests above must catch: with <= in place of < they would see a dependence."""
    model, length = network(kind), 6
    masks = block_masks(0, length, 3)
    leaky = masks.denoising.clone()
    leaky[:, :length] = masks.reading
    masks = type(masks)(0, 3, masks.reading, leaky, torch.cat([F.pad(masks.reading, (0, length)), leaky]))
    clean, noisy = tokens(1, length), torch.full((1, length), MASK)
    changed = clean.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % WORDS
    assert not torch.allclose(model(clean, noisy, masks)[:, 3:], model(changed, noisy, masks)[:, 3:])


@pytest.mark.parametrize("prompt", [1, 2])
def test_logits_of_training_are_those_behind_a_cache_for_every_block(kind, prompt):
    model, block, length = network(kind), 4, 12
    clean, noisy = tokens(2, prompt + length), half_masked(tokens(2, length, 1))
    together = model(clean, noisy, block_masks(prompt, length, block))
    cache = model.new_cache(prompt + length)
    with torch.no_grad():
        model.read(clean[:, :prompt], cache)
        for first in range(0, length, block):
            own = slice(first, first + block)
            for _ in range(2):  # a second call finds the cache as the first one did
                alone = model.logits(model.denoise(noisy[:, own], cache))
                torch.testing.assert_close(alone, together[:, own], atol=1e-5, rtol=1e-5)
            model.read(clean[:, prompt + first : prompt + first + block], cache)


def test_reading_then_denoising_is_the_pass_of_training(kind):
    model, clean, noisy = network(kind), tokens(2, 13), half_masked(tokens(2, 12, 1))
    masks = block_masks(1, 12, 4)
    torch.testing.assert_close(model.recall(noisy, model.remember(clean, masks), masks), model(clean, noisy, masks))


def test_with_one_token_a_block_every_draw_is_the_exact_autoregressive_likelihood(kind):
    model, clean, prompt = network(kind), tokens(3, 6), torch.full((3, 1), START)
    estimator = BoundEstimator("count", "uniform", draws=1, repeats=3, block=1)
    nats = block_nats(model, prompt, clean, 1)
    bound = estimator.estimate(nats, clean, NOISE, LinearSchedule(), torch.Generator().manual_seed(0))
    assert bound.variance.abs().max() == 0
    exact = torch.zeros(3)
    with torch.no_grad():
        for place in range(6):  # one token after the other, each behind the clean ones before
            cache = model.new_cache(7)
            for before in with_prompt(prompt, clean[:, :place]).split(1, 1):
                model.read(before, cache)
            log_p = model.logits(model.denoise(torch.full((3, 1), MASK), cache))[:, 0].log_softmax(-1)
            exact -= log_p.gather(1, clean[:, place, None])[:, 0]
    torch.testing.assert_close(bound.nats.float(), exact, atol=1e-4, rtol=1e-5)


def test_one_block_without_prompt_is_masked_diffusion_of_a_bidirectional_network():
    model, clean = network("decoder_only"), tokens(2, 8)
    noisy = half_masked(clean)
    torch.testing.assert_close(model(clean, noisy, block_masks(0, 8, 8)), model.logits(model.parallel(noisy)))


def test_the_count_estimator_is_the_integral_over_time_that_quadrature_gives():
    """L = S = 2, V = 3: all masks summed, the integral over t by Gauss-Legendre nodes."""
    torch.manual_seed(0)
    model = build(words=3, special=1, context=2, width=8, heads=2, feed_forward=8, encoder_layers=1, decoder_layers=1)
    model, noise, clean = model.double().eval(), AbsorbingNoise(4, 3), torch.tensor([[2, 0]])
    nats = block_nats(model, None, clean, 2)
    costs = {}
    for masked in itertools.product([False, True], repeat=2):
        flat = torch.tensor([masked])
        cost = nats(clean.masked_fill(flat, 3), flat, torch.zeros(1, 2))
        costs[masked] = float((cost * flat).sum().detach())
    nodes, weights = np.polynomial.legendre.leggauss(24)
    times, weights = (nodes + 1) / 2, weights / 2
    integral = sum(
        weight / time * sum(costs[m] * time ** sum(m) * (1 - time) ** (2 - sum(m)) for m in costs)
        for time, weight in zip(times, weights, strict=True)
    )
    by_count = sum(
        0.5 * 2 / count * sum(costs[m] for m in costs if sum(m) == count) / math.comb(2, count) for count in (1, 2)
    )
    assert by_count == pytest.approx(integral, abs=1e-6)
    estimator = BoundEstimator("count", "stratified", draws=200, repeats=2, block=2)
    bound = estimator.estimate(nats, clean, noise, LinearSchedule(), torch.Generator().manual_seed(0))
    assert float(bound.nats) == pytest.approx(integral, abs=5 * float(bound.variance.sqrt()) + 0.01)


def test_the_loss_counts_masked_tokens_only_and_divides_by_all(kind):
    clean, noisy = tokens(2, 6), half_masked(tokens(2, 6))
    logits = torch.randn(2, 6, WORDS, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = masked_nats(logits, clean, noisy, NOISE)
    by_hand = -sum(
        float(logits.detach()[b, n].log_softmax(-1)[clean[b, n]])
        for b in range(2)
        for n in range(6)
        if noisy[b, n] == MASK
    )
    assert float(loss.detach()) == pytest.approx(by_hand / 12, rel=1e-5)
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, noisy == MASK)


def test_every_block_of_a_training_draw_has_a_mask_and_the_prompt_none():
    seen = []

    class Spy:
        def __call__(self, clean, noisy, masks):
            seen.append((clean, noisy))
            return torch.zeros(*noisy.shape, WORDS)

    prompt = torch.full((50, 1), START)
    block_loss(Spy(), prompt, tokens(50, 12), 4, NOISE, torch.Generator().manual_seed(0))
    clean, noisy = seen[0]
    assert torch.equal(clean, with_prompt(prompt, tokens(50, 12)))
    masked = (noisy == MASK).reshape(50, 3, 4)
    assert masked.any(-1).all()
    shares = masked.float().mean(-1)
    assert shares.std(1).mean() > 0.1  # the blocks of a sequence have times of their own


@pytest.mark.parametrize(("steps", "denoisings"), [(4, 12), (2, 6), (1, 3)])
def test_cached_sampling_reads_every_block_once_and_denoises_it_in_t_steps(kind, steps, denoisings):
    prompt = torch.full((5, 2), START)
    drawn = sample_blocks(network(kind), prompt, 3, 4, NOISE, steps, torch.Generator().manual_seed(0))
    assert (drawn.readings, drawn.denoisings) == (3 + 1, denoisings)
    assert drawn.evaluations.tolist() == [denoisings] * 5
    without = sample_blocks(network(kind), prompt[:, :0], 3, 4, NOISE, steps, torch.Generator().manual_seed(0))
    assert without.readings == 3
    assert drawn.tokens.shape == (5, 12)
    assert int(drawn.tokens.max()) < WORDS


def test_sampled_tokens_are_those_of_full_passes_under_the_masks(kind):
    """One token a step, the surest first, without any cache."""
    model, block, prompt = network(kind), 3, torch.full((4, 1), START)
    drawn = sample_blocks(model, prompt, 2, block, NOISE, block, torch.Generator().manual_seed(0))
    sequence = torch.full((4, 6), MASK)
    for first in (0, 3):
        own = slice(first, first + block)
        for _ in range(block):
            clean = with_prompt(prompt, sequence.masked_fill(sequence == MASK, 0))
            log_p, best = model(clean, sequence, block_masks(1, 6, block))[:, own].log_softmax(-1).max(-1)
            chosen = log_p.masked_fill(sequence[:, own] != MASK, -math.inf).argmax(1, keepdim=True)
            sequence[:, own] = sequence[:, own].scatter(1, chosen, best.gather(1, chosen))
    assert torch.equal(drawn.tokens, sequence)


def test_a_threshold_writes_several_tokens_at_once_and_needs_fewer_calls(kind):
    model, prompt = network(kind), torch.full((6, 1), START)
    generator = torch.Generator().manual_seed(0)
    bold = sample_blocks(model, prompt, 2, 4, NOISE, 4, generator, threshold=1e-9)
    assert bold.denoisings == 2
    careful = sample_blocks(model, prompt, 2, 4, NOISE, 4, generator, threshold=1.0)
    plain = sample_blocks(model, prompt, 2, 4, NOISE, 4, generator)
    assert torch.equal(careful.tokens, plain.tokens)
    some = sample_blocks(model, prompt, 2, 4, NOISE, 4, generator, threshold=0.15)
    assert (some.evaluations <= 8).all()
    assert some.evaluations.min() < 8


def test_sequences_that_are_finished_come_along_and_change_nothing(kind):
    """Different prompts finish a block after different numbers of steps; each is written as it would be alone."""
    model, prompts = network(kind), tokens(16, 2, 5)

    def write(rows, threshold=None):
        return sample_blocks(model, rows, 3, 4, NOISE, 4, torch.Generator().manual_seed(0), threshold=threshold)

    probable = float(write(prompts).scores.exp().median())
    together = write(prompts, probable)
    alone = [write(prompt[None], probable) for prompt in prompts]
    assert len(together.evaluations.unique()) > 1
    assert torch.equal(torch.cat([each.tokens for each in alone]), together.tokens)
    assert torch.equal(torch.cat([each.evaluations for each in alone]), together.evaluations)
    assert sum(each.positions for each in alone) == together.positions


def test_bad_sizes_are_named():
    with pytest.raises(DiffusionError, match="do not divide"):
        block_masks(0, 10, 4)
    with pytest.raises(DiffusionError, match="expected 1 to 4"):
        sample_blocks(network("shared_keys"), tokens(1, 1), 1, 4, NOISE, 5, torch.Generator())
