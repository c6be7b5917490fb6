"""Heads over the dimensions of a token, against enumeration, known entropies and sampling without a cache."""

import itertools
import math

import pytest
import torch

from components.nn.dimension_ar_head import DimensionARHead, DimensionHeadError, draw
from components.nn.guidance import guided
from components.nn.independent_heads import IndependentHeads
from components.training.loop import Optimisation, fit

ORDER = [2, 0, 3, 1]


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter a random value: at the start gates are zero and nothing would depend on anything."""
    drawn = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=drawn))
    return module.eval()


def head(order=ORDER, levels=5, width=8) -> DimensionARHead:
    return shaken(DimensionARHead(6, len(order), levels, width=width, layers=2, heads=2, order=order))


@torch.no_grad()
def test_a_dimension_sees_those_before_it_in_the_order_and_no_others():
    model, condition = head(), torch.randn(3, 6, generator=generator())
    indices = torch.randint(5, (3, 4), generator=generator())
    logits = model(indices, condition)
    for place, dimension in enumerate(ORDER):
        changed = indices.clone()
        changed[:, dimension] = (changed[:, dimension] + 1) % 5
        differs = (model(changed, condition) - logits).abs().amax((1, 2))
        assert differs[: place + 1].max() == 0
        assert bool((differs[place + 1 :] > 1e-4).all())


@torch.no_grad()
def test_a_token_depends_on_its_own_condition_and_on_no_other_token():
    model, condition = head(), torch.randn(4, 6, generator=generator())
    indices = torch.randint(5, (4, 4), generator=generator())
    before = model.nll(indices, condition)
    indices[2], condition[3] = (indices[2] + 1) % 5, condition[3] + 1
    after = model.nll(indices, condition)
    assert torch.equal(before[:2], after[:2])
    assert bool((before[2:] - after[2:]).abs().amax(1).gt(1e-4).all())


@torch.no_grad()
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_probabilities_of_all_combinations_sum_to_one(order):
    model = head(order=order, levels=4)
    combinations = torch.tensor(list(itertools.product(range(4), range(4))))
    for condition in torch.randn(5, 6, generator=generator()):
        nll = model.nll(combinations, condition.expand(16, -1)).double()
        assert float(nll.sum(1).neg().exp().sum()) == pytest.approx(1, abs=1e-6)
        # The first dimension of the order is predicted alone, so its probabilities sum to one by themselves.
        first = nll[:, order[0]].neg().exp().view(4, 4)
        marginal = first[:, 0] if order[0] == 0 else first[0]
        assert float(marginal.sum()) == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_likelihoods_stand_at_their_own_dimensions():
    model, condition = head(), torch.randn(7, 6, generator=generator())
    indices = torch.randint(5, (7, 4), generator=generator())
    logits, found = model(indices, condition), model.nll(indices, condition)
    for place, dimension in enumerate(ORDER):
        expected = -logits[place].log_softmax(-1).gather(1, indices[:, dimension : dimension + 1]).squeeze(1)
        torch.testing.assert_close(found[:, dimension], expected)
    torch.testing.assert_close(model.loss(indices, condition), found.mean())


@torch.no_grad()
@pytest.mark.parametrize("guidance", [None, 1.5])
def test_sampling_with_a_cache_is_sampling_without_one(guidance):
    model, condition = head(), torch.randn(50, 6, generator=generator())
    without_class = torch.randn(50, 6, generator=generator(1)) if guidance else None
    drawn = model.sample(condition, generator(7), unguided=without_class, guidance=guidance or 1.0, temperature=0.9)

    random, indices = generator(7), torch.zeros(50, 4, dtype=torch.long)
    for place, dimension in enumerate(ORDER):
        logits = model(indices, condition)[place]
        if guidance:
            without = model(indices, without_class)[place]
            logits = without + guidance * (logits - without)
        indices[:, dimension] = draw(logits, 0.9, random)
    assert torch.equal(drawn, indices)


@torch.no_grad()
def test_samples_have_the_frequencies_that_the_likelihood_says():
    model, condition = head(order=[1, 0], levels=3), torch.randn(1, 6, generator=generator())
    drawn = model.sample(condition.expand(20_000, -1), generator())
    combinations = torch.tensor(list(itertools.product(range(3), range(3))))
    expected = model.nll(combinations, condition.expand(9, -1)).sum(1).neg().exp()
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 20_000
    torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)


def test_equal_dimensions_cost_their_joint_entropy_one_by_one_and_the_sum_of_their_entropies_in_parallel():
    condition = torch.ones(64, 4)

    def tokens(step, drawn):
        return torch.randint(4, (64, 1), generator=drawn).expand(-1, 2).contiguous()

    losses = {}
    for name, model in {
        "ar": DimensionARHead(4, 2, 4, width=16, layers=1, heads=2, order=[1, 0]),
        "parallel": IndependentHeads(4, 2, 4),
    }.items():
        fit(model, tokens, lambda model, batch, drawn: (model.loss(batch, condition), {}),
            Optimisation(steps=120, learning_rate=2e-2), seed=0)  # fmt: skip
        with torch.no_grad():
            every = torch.arange(4).unsqueeze(1).expand(-1, 2)
            losses[name] = float(model.nll(every, condition[:4]).sum(1).mean())
    assert losses["ar"] == pytest.approx(math.log(4), abs=0.03)
    assert losses["parallel"] >= 2 * math.log(4) - 1e-6


@torch.no_grad()
def test_independent_heads_predict_every_dimension_from_the_condition_alone():
    model = shaken(IndependentHeads(6, 2, 3))
    condition = torch.randn(1, 6, generator=generator())
    combinations = torch.tensor(list(itertools.product(range(3), range(3))))
    nll = model.nll(combinations, condition.expand(9, -1))
    table = model(condition)[0].log_softmax(-1)
    torch.testing.assert_close(nll, -torch.stack([table[0][combinations[:, 0]], table[1][combinations[:, 1]]], 1))
    drawn = model.sample(condition.expand(20_000, -1), generator())
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 20_000
    torch.testing.assert_close(counts, nll.sum(1).neg().exp(), atol=0.015, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("model", [head(), shaken(IndependentHeads(6, 4, 5))], ids=["one by one", "parallel"])
def test_guidance_at_scale_one_is_no_guidance(model):
    condition, other = torch.randn(2, 30, 6, generator=generator())
    plain = model.sample(condition, generator(3))
    assert torch.equal(plain, model.sample(condition, generator(3), unguided=other, guidance=1.0))
    assert not torch.equal(plain, model.sample(condition, generator(3), unguided=other, guidance=4.0))


def test_guidance_goes_from_the_unconditional_half_through_the_conditional_one():
    both = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert guided(both, 2.0, pairs=True).tolist() == [[5.0, -1.0]]
    assert guided(both, 0.0, pairs=True).tolist() == [[1.0, 1.0]]
    assert guided(both, 2.0, pairs=False) is both


def test_an_order_that_is_no_permutation_and_levels_of_another_width_are_refused():
    with pytest.raises(DimensionHeadError, match="exactly once"):
        DimensionARHead(4, 3, 2, width=4, layers=1, heads=1, order=[0, 1, 1])
    with pytest.raises(DimensionHeadError, match=r"\(N, 4\)"):
        head()(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 6))
    with pytest.raises(DimensionHeadError, match=r"\(N, 2\)"):
        IndependentHeads(6, 2, 3).nll(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 6))
