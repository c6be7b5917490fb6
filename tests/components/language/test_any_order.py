"""Any-order autoregression: orders, rates, and densities against enumeration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.any_order import (
    MaskRates,
    Order,
    OrderError,
    blind_denoiser,
    hide,
    joint_nats,
    lattice_order,
    mean_nats,
    next_logits,
    parallel_nats,
    random_order,
    sequential_nats,
)
from tests.support.any_order_models import enumerated, random_model

N, V = 6, 3


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_orders_are_permutations_with_the_prompt_first(visible, seed):
    given_ = torch.tensor([visible])
    lattice = lattice_order(given_)
    random = random_order(given_, torch.Generator().manual_seed(seed))
    for order in (lattice, random):
        assert sorted(order.ranks[0].tolist()) == list(range(len(visible)))
        assert torch.equal(order.masked, ~given_)
        assert torch.equal(order.ranks.gather(1, order.positions)[0], torch.arange(len(visible)))
    for part in (given_, ~given_):
        assert (lattice.ranks[part].diff() > 0).all()


def test_random_orders_are_uniform_over_the_permutations_of_the_masked():
    visible = torch.tensor([[False, True, False, False]]).expand(6000, -1)
    ranks = random_order(visible, torch.Generator().manual_seed(0)).ranks[:, [0, 2, 3]]
    _, counts = ranks.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()


def test_hidden_positions_are_as_many_as_asked_for_and_anywhere():
    counts = torch.tensor([0, 1, 3, 5]).repeat_interleave(2000)
    visible = hide(counts, 5, torch.Generator().manual_seed(0))
    assert torch.equal((~visible).sum(1), counts)
    share = (~visible[4000:6000]).double().mean(0)
    assert ((share - 0.6).abs() < 0.05).all()


def test_mask_rates_start_at_one_rate_and_widen_linearly_to_their_range():
    rates = MaskRates(0.15, 0.85, 0.99, 300)
    assert rates.bounds(0) == (0.15, 0.15)
    assert rates.bounds(150) == pytest.approx((0.5, 0.57))
    assert rates.bounds(300) == rates.bounds(9999) == (0.85, 0.99)
    drawn = rates.draw(1000, 8, torch.Generator().manual_seed(0))
    assert torch.equal(((drawn - 0.85) / 0.14 * 8).long(), torch.arange(8))  # one in each eighth of the range
    assert torch.equal(rates.counts(0, 4, 64, torch.Generator()), torch.full((4,), 10))
    with pytest.raises(OrderError, match="low <= high"):
        MaskRates(0.15, 0.9, 0.8, 1)


@pytest.mark.parametrize("seed", range(3))
def test_one_oracle_pass_is_a_distribution_over_all_completions(seed):
    model = random_model(V, N, seed)
    generator = torch.Generator().manual_seed(seed)
    visible = hide(torch.tensor([5]), N, generator)
    tokens = torch.randint(V, (1, N), generator=generator)
    for order in (lattice_order(visible), random_order(visible, generator)):
        _, joint = enumerated(model, tokens, order, V)
        assert len(joint) == V**5
        assert float(joint.sum()) == pytest.approx(1, abs=1e-5)


def test_the_oracle_pass_is_the_product_of_sequential_calls():
    model = random_model(V, N)
    generator = torch.Generator().manual_seed(3)
    visible = hide(torch.tensor([1, 3, 5, 6]), N, generator)
    tokens = torch.randint(V, (4, N), generator=generator)
    order = random_order(visible, generator)
    # One call per rank: hide what is not known, ask under the draft mask, take the row of the next position.
    expected = torch.zeros(4, N)
    for text in range(4):
        row = torch.tensor([text])
        for rank in range(int(order.prompt[text]), N):
            position = order.positions[row, rank][:, None]
            logits = next_logits(model, tokens[row], order[row], torch.tensor([rank]), position)
            expected[text, position] = -logits[0, 0].log_softmax(-1)[tokens[text, position[0, 0]]]
    with torch.no_grad():
        assert torch.allclose(joint_nats(model, tokens, order), expected, atol=1e-4)


def test_masked_tokens_are_blind_to_each_other_in_the_parallel_loss():
    model = random_model(V, N)
    visible = torch.tensor([[True, False, False, True, False, False]])
    order, tokens = lattice_order(visible), torch.zeros(1, N, dtype=torch.int64)
    before = parallel_nats(model, tokens, order)
    changed = tokens.clone()
    changed[0, 1] = 2
    after = parallel_nats(model, changed, order)
    assert torch.equal(before[0, 2:], after[0, 2:])
    assert before[0, 1] != after[0, 1]
    assert (before[~order.masked] == 0).all()
    # The first masked token sees the same in both; the others do not.
    joint = joint_nats(model, tokens, order)
    assert torch.allclose(before[0, 1], joint[0, 1], atol=1e-5)
    assert (before - joint)[0, [2, 4, 5]].abs().min() > 1e-4


def test_sequential_densities_see_all_that_is_known_as_one_prompt():
    model = random_model(V, N)
    generator = torch.Generator().manual_seed(5)
    visible = hide(torch.tensor([2, 5]), N, generator)
    tokens = torch.randint(V, (2, N), generator=generator)
    order = lattice_order(visible)
    found = sequential_nats(model, tokens, order)
    for text in range(2):
        for rank in range(int(order.prompt[text]), N):
            known = order.ranks[text : text + 1] < rank
            with torch.no_grad():
                nats = parallel_nats(model, tokens[text : text + 1], lattice_order(known))
            position = order.positions[text, rank]
            assert found[text, position] == pytest.approx(float(nats[0, position]), abs=1e-4)
    assert (found[~order.masked] == 0).all()


def test_the_loss_weighs_every_masked_token_alike():
    order = Order(torch.tensor([[0, 1, 2], [2, 0, 1]]), torch.tensor([2, 0]))
    nats = torch.tensor([[0.0, 0.0, 1.0], [5.0, 3.0, 1.0]])
    assert float(mean_nats(nats, order)) == pytest.approx(10 / 4)


def test_as_a_denoiser_a_network_says_what_the_parallel_loss_asks():
    model = random_model(V, N)
    generator = torch.Generator().manual_seed(6)
    visible = hide(torch.tensor([2, 5, 6]), N, generator)
    tokens = torch.randint(V, (3, N), generator=generator)
    wanted = (~visible).flatten().nonzero()[:, 0]
    with torch.no_grad():
        logits = blind_denoiser(model)(tokens.masked_fill(~visible, V), torch.zeros(3), torch.arange(3), wanted)
        expected = parallel_nats(model, tokens, lattice_order(visible))[~visible]
    found = torch.nn.functional.cross_entropy(logits, tokens[~visible], reduction="none")
    assert torch.allclose(found, expected, atol=1e-5)
