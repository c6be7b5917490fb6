"""Plans carried out: against loops, and what they conserve."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression.merging import plan as plans
from components.compression.merging.pitome import PiToMe
from components.compression.merging.pitome_bsm import PiToMeBipartite
from components.compression.merging.plan import Depth, MergeError, MergePlan, merged, reduce_to, to_remove
from components.compression.merging.random_pairs import RandomPairs
from components.compression.merging.tofu import ToFu
from components.compression.merging.tome import ToMe

METHODS = {
    "pitome": PiToMe(),
    "paper": PiToMe("paper"),
    "text": PiToMe("kernel", fall=0.25, split="halves"),
    "random_split": PiToMe(split="random"),
    "pitome_bsm": PiToMeBipartite(),
    "tome": ToMe(),
    "random_pairs": RandomPairs(),
}


def drawn(seed: int, batch: int, tokens: int, width: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, tokens, width, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 5, (batch, tokens), generator=generator).double()
    return values, sizes, generator


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 21), st.data())
def test_merging_conserves_mass_and_removes_exactly_so_many(name, seed, tokens, data):
    count = data.draw(st.integers(0, tokens // 2))
    values, sizes, generator = drawn(seed, 3, tokens)
    plan = METHODS[name].plan(values, count, Depth(1, 6, None, generator))
    after, after_sizes = merged(plan, values, sizes)
    assert after.shape == (3, tokens - count, 5)
    assert sorted(torch.cat([plan.kept, plan.gone], 1)[0].tolist()) == list(range(tokens))
    torch.testing.assert_close(after_sizes.sum(1), sizes.sum(1), rtol=0, atol=0)
    before = (values * sizes[..., None]).sum(1)
    torch.testing.assert_close((after * after_sizes[..., None]).sum(1), before, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.data())
def test_a_plan_is_the_loop_over_its_tokens(seed, tokens, data):
    count = data.draw(st.integers(0, tokens - 1))
    values, sizes, generator = drawn(seed, 2, tokens)
    order = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(2)])
    into = torch.randint(tokens - count, (2, count), generator=generator)
    plan = MergePlan(order[:, count:], order[:, :count], into)
    found, found_sizes = merged(plan, values, sizes)
    for row in range(2):
        members = {place: [int(token)] for place, token in enumerate(plan.kept[row])}
        for token, place in zip(plan.gone[row].tolist(), plan.into[row].tolist(), strict=True):
            members[place].append(token)
        for place, group in members.items():
            mass = sizes[row, group]
            wanted = (values[row, group] * mass[:, None]).sum(0) / mass.sum()
            torch.testing.assert_close(found[row, place], wanted, rtol=0, atol=1e-13)
            assert found_sizes[row, place] == mass.sum()
            if len(group) == 1:
                assert torch.equal(found[row, place], values[row, group[0]])
        ends = plans.destinations(plan)[row].tolist()
        assert all(ends[token] == place for place, group in members.items() for token in group)


def test_mass_is_conserved_in_single_precision_over_many_layers():
    tokens = torch.randn(4, 144, 32, generator=torch.Generator().manual_seed(0))
    before, sizes = tokens.sum(1), None
    for layer in range(6):
        plan = PiToMe().plan(tokens, to_remove(tokens.shape[1], 0.8), Depth(layer, 6))
        tokens, sizes = merged(plan, tokens, sizes)
    torch.testing.assert_close(sizes.sum(1), torch.full((4,), 144.0), rtol=0, atol=0)
    torch.testing.assert_close((tokens * sizes[..., None]).sum(1) / 144, before / 144, rtol=0, atol=1e-5)


def test_dropped_tokens_leave_the_others_as_they_are():
    values, sizes, _ = drawn(0, 2, 8)
    plan = ToFu("early").plan(values, 3, Depth(0, 6))
    assert not plan.average
    after, after_sizes = merged(plan, values, sizes)
    assert torch.equal(after, values.gather(1, plan.kept[..., None].expand(-1, -1, 5)))
    assert torch.equal(after_sizes, sizes.gather(1, plan.kept))
    ends = plans.destinations(plan)
    assert (ends == -1).sum(1).tolist() == [3, 3]


def test_groups_follow_tokens_through_several_plans():
    values, _, _ = drawn(1, 2, 20)
    tokens, sizes, steps, walked = values, None, [], values
    for layer in range(3):
        steps.append(PiToMe().plan(walked, 4, Depth(layer, 6)))
        walked, sizes = merged(steps[-1], walked, sizes)
    ends = plans.groups(steps)
    for row in range(2):
        for place in range(8):
            own = ends[row] == place
            assert own.sum() == sizes[row, place]
            torch.testing.assert_close(walked[row, place], tokens[row, own].mean(0), rtol=0, atol=1e-13)


def test_a_dropped_token_stays_dropped():
    values, _, _ = drawn(2, 1, 9)
    first = ToFu("early").plan(values, 2, Depth(0, 6))
    second = ToMe().plan(merged(first, values)[0], 3, Depth(3, 6))
    ends = plans.groups([first, second])
    assert (ends[0, first.gone[0]] == -1).all()
    assert set(ends[0].tolist()) == {-1, 0, 1, 2, 3}


def test_the_weighted_mean_is_the_mean_of_the_original_tokens():
    values, _, _ = drawn(3, 2, 16)
    tokens, sizes, _ = reduce_to(ToMe(), values, 3)
    torch.testing.assert_close(plans.weighted_mean(tokens, sizes), values.mean(1), rtol=0, atol=1e-13)
    assert torch.equal(plans.weighted_mean(values), values.mean(1))


@pytest.mark.parametrize("count", [1, 2, 7, 13, 16])
def test_tokens_are_reduced_to_any_number_in_steps_of_at_most_half(count):
    values, _, generator = drawn(4, 2, 16)
    for reducer in (PiToMe(), ToMe(), RandomPairs()):
        tokens, sizes, steps = reduce_to(reducer, values, count, generator=generator)
        assert tokens.shape == (2, count, 5)
        assert sizes.sum(1).tolist() == [16, 16]
        assert all(plan.gone.shape[1] <= plan.kept.shape[1] for plan in steps)


def test_the_number_to_remove_is_rounded_down_but_not_by_rounding_errors():
    assert [to_remove(64, ratio) for ratio in (1.0, 0.95, 0.9, 0.8, 0.5)] == [0, 3, 6, 12, 32]
    for tokens in range(1, 400):
        for hundredths in range(50, 101):
            assert to_remove(tokens, hundredths / 100) == tokens * (100 - hundredths) // 100


def test_what_has_no_meaning_is_refused():
    values, _, _ = drawn(5, 1, 6)
    with pytest.raises(MergeError, match=r"expected 0\.5 to 1"):
        to_remove(10, 0.4)
    with pytest.raises(MergeError, match="4 of 6 tokens cannot vanish in one step; expected 0 to 3"):
        PiToMe().plan(values, 4, Depth())
    with pytest.raises(MergeError, match="no generator"):
        RandomPairs().plan(values, 2, Depth())
    with pytest.raises(MergeError, match="cannot be reduced to 7"):
        reduce_to(ToMe(), values, 7)
    with pytest.raises(MergeError, match="no plan to follow"):
        plans.groups([])
