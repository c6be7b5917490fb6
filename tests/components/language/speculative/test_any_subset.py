"""Filling gaps: laws against enumeration, calls against their bound."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from components.language.any_order import Order, hide, lattice_order, next_logits, random_order
from components.language.context_ngram import ContextBigram
from components.language.speculative.any_subset import (
    FillingError,
    SelfDrafter,
    fill_in_parallel,
    fill_speculatively,
)
from components.language.speculative.rejection import draw
from tests.support.any_order_models import AllEqual, Independent, enumerated, random_model

V, N = 3, 5


def fit(samples: torch.Tensor, texts: torch.Tensor, joint: torch.Tensor) -> float:
    """p-value of the samples under the enumerated law, texts expected fewer than 5 times pooled."""
    weights = V ** torch.arange(texts.shape[1])
    place = {int(code): row for row, code in enumerate((texts * weights).sum(1))}
    found = np.bincount([place[int(code)] for code in (samples * weights).sum(1)], minlength=len(texts))
    expected = (joint / joint.sum() * len(samples)).numpy()
    rare = expected < 5
    if rare.any():
        found = np.append(found[~rare], found[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return chisquare(found, expected).pvalue


def one_text(seed: int, masked: int, count: int, lattice: bool = True):
    generator = torch.Generator().manual_seed(seed)
    visible = hide(torch.tensor([masked]), N, generator)
    order = lattice_order(visible) if lattice else random_order(visible, generator)
    tokens = torch.randint(V, (1, N), generator=generator)
    many = Order(order.ranks.expand(count, -1), order.prompt.expand(count))
    return tokens, order, tokens.expand(count, -1), many, generator


@pytest.mark.parametrize(("k", "lattice"), [(2, True), (3, False), (5, True)])
def test_speculative_filling_draws_from_the_enumerated_joint(k, lattice):
    model = random_model(V, N, k, 0.4)
    tokens, order, many, orders, generator = one_text(k, 4, 20_000, lattice)
    texts, joint = enumerated(model, tokens, order, V)
    samples = fill_speculatively(model, many, orders, k, generator)
    assert fit(samples.tokens, texts, joint) > 0.01
    assert (samples.accepted.sum(0)[1] < samples.reached.sum(0)[1]).all()  # drafts were refused, so it was tested
    # The same test refuses what parallel filling of the same network gives.
    assert fit(fill_in_parallel(model, many, orders, k, generator).tokens, texts, joint) < 1e-4


def test_drafts_from_the_context_leave_the_law_as_it_is():
    model = random_model(V, N, 1, 0.4)
    tokens, order, many, orders, generator = one_text(7, 3, 20_000)
    texts, joint = enumerated(model, tokens, order, V)
    samples = fill_speculatively(model, many, orders, 3, generator, drafter=ContextBigram(V))
    assert fit(samples.tokens, texts, joint) > 0.01
    assert (samples.accepted[:, 0] < samples.reached[:, 0]).any()
    assert (samples.calls <= 3).all()


def test_temperature_holds_for_drafts_and_verification_alike():
    model = random_model(V, N, 2, 0.4)
    tokens, order, many, orders, generator = one_text(2, 3, 20_000)

    class Tempered:
        vocabulary_size = mask_token_id = V

        def __call__(self, *args):
            return model(*args) / 0.6

    texts, joint = enumerated(Tempered(), tokens, order, V)
    samples = fill_speculatively(model, many, orders, 3, generator, temperature=0.6)
    assert fit(samples.tokens, texts, joint) > 0.01


def test_all_equal_tokens_stay_equal_only_when_they_are_verified():
    model, count = AllEqual(4), 4000
    order = lattice_order(torch.zeros(count, 6, dtype=torch.bool))
    tokens, generator = torch.zeros(count, 6, dtype=torch.int64), torch.Generator().manual_seed(0)
    equal = {
        fill: (fill(model, tokens, order, 3, generator).tokens.diff(dim=1) == 0).all(1).double().mean()
        for fill in (fill_speculatively, fill_in_parallel)
    }
    assert equal[fill_speculatively] == 1
    assert equal[fill_in_parallel] < 0.3


@pytest.mark.parametrize("drafter", [None, ContextBigram(V)])
@pytest.mark.parametrize("k", [2, 3, 7])
def test_calls_never_exceed_the_tokens_filled(k, drafter):
    model = random_model(V, 12, 3)
    generator = torch.Generator().manual_seed(k)
    visible = hide(torch.arange(300) % 13, 12, generator)
    tokens = torch.randint(V, (300, 12), generator=generator)
    for order in (lattice_order(visible), random_order(visible, generator)):
        filled = fill_speculatively(model, tokens, order, k, generator, drafter=drafter)
        assert (filled.calls <= order.masked.sum(1)).all()
        assert torch.equal(filled.tokens[visible], tokens[visible])
        assert int(filled.tokens.max()) < V


def test_one_token_a_call_is_sequential_decoding_with_the_same_random_numbers():
    model = random_model(V, 8)
    generator = torch.Generator().manual_seed(0)
    visible = hide(torch.full((40,), 6), 8, generator)
    tokens, order = torch.randint(V, (40, 8), generator=generator), random_order(visible, generator)
    text, draws = tokens.clone(), torch.Generator().manual_seed(1)
    for rank in range(2, 8):
        place = order.positions[:, rank, None]
        law = next_logits(model, text, order, torch.full((40,), rank), place)[:, 0].softmax(-1)
        text.scatter_(1, place, draw(law, draws)[:, None])
    for fill in (fill_speculatively, fill_in_parallel):
        filled = fill(model, tokens, order, 1, torch.Generator().manual_seed(1))
        assert torch.equal(filled.tokens, text)
        assert (filled.calls == 6).all()
        assert not filled.reached.any()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_independent_tokens_are_always_accepted_in_as_few_calls_as_there_can_be(k):
    length = 11
    model = Independent(torch.randn(length, 4, generator=torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(k)
    masked = torch.arange(200) % (length + 1)
    order = random_order(hide(masked, length, generator), generator)
    filled = fill_speculatively(model, torch.zeros(200, length, dtype=torch.int64), order, k, generator)
    assert torch.equal(filled.accepted, filled.reached)
    assert torch.equal(filled.calls, 2 * -(-masked // k) - (masked % k == 1).long())
    parallel = fill_in_parallel(model, torch.zeros(200, length, dtype=torch.int64), order, k, generator)
    assert torch.equal(parallel.calls, -(-masked // k))


def test_texts_do_not_wait_for_each_other_and_are_filled_alone_as_together():
    model = AllEqual(4)
    visible = torch.tensor([[True] + [False] * 7, [True] * 7 + [False]])
    tokens = torch.full((2, 8), 3)
    filled = fill_speculatively(model, tokens, lattice_order(visible), 4, torch.Generator().manual_seed(0))
    assert filled.tokens.eq(3).all()
    assert filled.calls.tolist() == [4, 1]


def test_impossible_settings_are_refused():
    order = lattice_order(torch.zeros(1, 3, dtype=torch.bool))
    for k, temperature in ((0, 1.0), (2, 0.0)):
        with pytest.raises(FillingError, match="expected k >= 1 and a temperature > 0"):
            fill_in_parallel(AllEqual(2), torch.zeros(1, 3), order, k, temperature=temperature)


def test_the_drafter_says_what_it_drew_from():
    model = random_model(V, N)
    _, _, many, orders, generator = one_text(0, 4, 30_000)
    queries = orders.positions[:, 1:4]
    drafts, law = SelfDrafter(model, 0.8).draft(many, orders, orders.prompt, queries, generator)
    share = torch.stack([(drafts == token).double().mean(0) for token in range(V)], -1)
    assert torch.allclose(share, law[0].double(), atol=0.02)
