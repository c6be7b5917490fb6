"""Masked autoregression: what a condition may depend on, likelihoods by enumeration, its schedules."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from components.language.class_conditional import GeneratorError
from components.language.masked_autoregressive import MaskedAR, revealed
from components.nn.dimension_ar_head import draw
from components.nn.independent_heads import IndependentHeads
from components.nn.token_embedding import IndexEmbedding

CLASSES, WIDTH = 3, 8


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(positions=6, least_masked=0.7) -> MaskedAR:
    torch.manual_seed(0)
    made = MaskedAR(
        embedding=IndexEmbedding(3, WIDTH), head=IndependentHeads(WIDTH, 1, 3), classes=CLASSES, positions=positions,
        width=WIDTH, layers=1, decoder_layers=1, heads=2, class_tokens=2, least_masked=least_masked,
    )  # fmt: skip
    # What starts near zero is made large, so that classes and tokens tell.
    for table in (made.class_embedding.weight, made.embedding.table.weight, made.head.output.weight):
        torch.nn.init.normal_(table)
    return made.eval()


@torch.no_grad()
def test_conditions_depend_on_every_visible_token_and_on_no_masked_one():
    network, labels = model(), torch.arange(4) % CLASSES
    given = torch.randint(3, (4, 6, 1), generator=generator())
    visible = torch.tensor([[4, 1]]).expand(4, -1)
    before = network.conditions(given, visible, labels)
    for place in range(6):
        changed = given.clone()
        changed[:, place] = (changed[:, place] + 1) % 3
        moved = (network.conditions(changed, visible, labels) - before).abs().amax(2)
        assert bool((moved > 1e-5).all()) if place in (1, 4) else not moved.any()


@torch.no_grad()
def test_the_order_in_which_visible_tokens_are_listed_says_nothing():
    network, labels = model(), torch.arange(4) % CLASSES
    given = torch.randint(3, (4, 6, 1), generator=generator())
    one, other = (network.conditions(given, torch.tensor([v]).expand(4, -1), labels) for v in ([4, 1, 2], [2, 4, 1]))
    torch.testing.assert_close(one, other)


@torch.no_grad()
def test_probabilities_of_all_images_of_a_class_sum_to_one():
    network = model(positions=3)
    every = torch.tensor(list(itertools.product(range(3), repeat=3))).unsqueeze(-1)
    for label in range(CLASSES + 1):
        nll = network.nll(every, torch.full((27,), label)).double()
        assert float(nll.sum((1, 2)).neg().exp().sum()) == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_with_one_position_a_step_samples_have_the_frequencies_of_the_likelihood_averaged_over_orders():
    network = model(positions=2)
    labels = torch.ones(30_000, dtype=torch.long)
    drawn = network.sample(labels, generator(), steps=2).squeeze(-1)
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / len(drawn)
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).unsqueeze(-1)
    ones, expected = torch.ones(9, dtype=torch.long), 0.0
    for first, second in ((0, 1), (1, 0)):
        nothing, visible = torch.zeros(9, 0, dtype=torch.long), torch.full((9, 1), first)
        nll = network.head.nll(every[:, first], network.conditions(every, nothing, ones)[:, first])
        nll = nll + network.head.nll(every[:, second], network.conditions(every, visible, ones)[:, second])
        expected = expected + nll.squeeze(1).neg().exp() / 2
    torch.testing.assert_close(counts, expected, atol=0.012, rtol=0)


@torch.no_grad()
def test_guidance_combines_the_logits_with_and_without_the_class():
    network, labels = model(positions=1), torch.arange(300) % CLASSES
    drawn = network.sample(labels, generator(), steps=1, guidance=5.0)
    random = generator()
    torch.rand((300, 1), generator=random)  # the order of the positions
    given, nothing = torch.zeros(300, 1, 1, dtype=torch.long), torch.zeros(300, 0, dtype=torch.long)
    with_class, without = (
        network.head(network.conditions(given, nothing, classes)[:, 0])[:, 0]
        for classes in (labels, torch.full_like(labels, CLASSES))
    )
    assert torch.equal(drawn[:, 0, 0], draw(without + 5 * (with_class - without), 1.0, random))
    assert not torch.equal(drawn, network.sample(labels, generator(), steps=1))


@pytest.mark.parametrize(("positions", "steps"), [(16, 16), (256, 64), (256, 256), (5, 2), (4, 1)])
def test_every_step_reveals_something_and_the_last_one_everything(positions, steps):
    known = revealed(positions, steps)
    assert len(known) == steps
    assert known[-1] == positions
    assert all(before < after for before, after in itertools.pairwise([0, *known]))
    # Where the cosine leaves room, the count is the schedule's own.
    middle = steps // 2
    if steps == 64:
        assert known[middle - 1] == positions - math.floor(positions * math.cos(math.pi * middle / (2 * steps)))


def test_the_share_of_masked_positions_is_a_truncated_normal():
    network = model(positions=100_000)
    drawn = generator()
    shares = np.array([network.draw_step(drawn) for _ in range(2000)]) / 100_000
    law = truncnorm((0.7 - 1) / 0.25, 0, loc=1.0, scale=0.25)
    assert kstest(shares, law.cdf).pvalue > 0.01
    assert 0.7 <= shares.min() < shares.max() <= 1


def test_the_loss_is_over_the_masked_positions_and_reaches_every_part():
    network = model()
    given = torch.randint(3, (4, 6, 1), generator=generator())
    loss = network.loss(given, torch.zeros(4, dtype=torch.long), generator(), 4)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    everything = network.loss(given, torch.zeros(4, dtype=torch.long), generator(), 6)
    assert bool(torch.isfinite(everything))


def test_what_does_not_fit_is_refused():
    with pytest.raises(GeneratorError, match="1 to 4"):
        revealed(4, 5)
    with pytest.raises(GeneratorError, match=r"\(B, 6, C\)"):
        model().conditions(torch.zeros(2, 5, 1, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long), torch.zeros(2))
