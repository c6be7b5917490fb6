"""Greedy diverse subsets: the guarantee, the running minimum against the definition, ties, duplicates."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression.kcenter import (
    SelectionError,
    covering_radius,
    distances,
    greedy_order,
    mean_pairwise_distance,
    unit_features,
)

SETS = st.tuples(st.integers(2, 12), st.integers(2, 5), st.integers(0, 2**31))


def drawn(tokens: int, width: int, seed: int, pictures: int = 1) -> torch.Tensor:
    return torch.randn(pictures, tokens, width, generator=torch.Generator().manual_seed(seed))


def all_distances(features: torch.Tensor) -> torch.Tensor:
    units = torch.nn.functional.normalize(features.double(), dim=-1)
    return 1 - units @ units.transpose(1, 2)


def chord(distance: torch.Tensor) -> torch.Tensor:
    return (2 * distance.clamp_min(0)).sqrt()


@settings(deadline=None, max_examples=30)
@given(SETS, st.data())
def test_the_radius_is_at_most_twice_the_best_in_chord_length(size, data):
    features = drawn(*size)
    tokens = size[0]
    count = data.draw(st.integers(1, min(tokens, 6)))
    first = torch.tensor([data.draw(st.integers(0, tokens - 1))])
    between = all_distances(features)[0]
    best = min(float(between[list(chosen)].amin(0).amax()) for chosen in combinations(range(tokens), count))
    own = covering_radius(features, greedy_order(features, count, first))
    assert chord(own).item() <= 2 * chord(torch.tensor(best)).item() + 1e-3


def test_the_guarantee_is_one_of_chords_not_of_cosine_distances():
    # On an arc the middle covers both ends: starting from an end is twice as far in chords, four times in d.
    angles = torch.tensor([0.0, 0.1, 0.2])
    features = torch.stack([angles.cos(), angles.sin()], 1)[None]
    own = covering_radius(features, greedy_order(features, 1, torch.tensor([0])))
    best = covering_radius(features, torch.tensor([[1]]))
    assert float(own / best) == pytest.approx(4, rel=0.01)
    assert float(chord(own) / chord(best)) == pytest.approx(2, rel=0.01)


@settings(deadline=None, max_examples=30)
@given(SETS, st.sampled_from(["maxmin", "maxsum"]), st.booleans())
def test_the_running_choice_is_the_one_of_the_definition(size, objective, remove_mean):
    features = drawn(*size)
    centred = features - features.double().mean(1, keepdim=True) if remove_mean else features
    between = all_distances(centred)[0]
    tokens = size[0]
    order = greedy_order(features, tokens, torch.tensor([1]), objective=objective, remove_mean=remove_mean)[0].tolist()
    assert sorted(order) == list(range(tokens))
    for step in range(1, tokens):
        to_chosen = between[order[:step]]
        score = to_chosen.amin(0) if objective == "maxmin" else to_chosen.sum(0)
        left = [index for index in range(tokens) if index not in order[:step]]
        # The chosen one is as good as the best, up to the rounding that makes ties exact.
        assert float(score[order[step]]) >= float(score[left].max()) - tokens * 1e-6


@pytest.mark.parametrize("objective", ["maxmin", "maxsum"])
def test_a_smaller_choice_begins_a_larger_one(objective):
    features, first = drawn(20, 6, 0, pictures=3), torch.tensor([4, 0, 19])
    whole = greedy_order(features, 20, first, objective=objective)
    for count in (1, 7, 19):
        assert torch.equal(greedy_order(features, count, first, objective=objective), whole[:, :count])


@pytest.mark.parametrize("objective", ["maxmin", "maxsum"])
def test_ties_go_to_the_smallest_index_whatever_the_batch(objective):
    # Many tokens in few directions, so that nearly every step is a tie.
    directions = drawn(5, 7, 1)[0]
    scale = 2.0 ** torch.randint(-3, 4, (60, 1), generator=torch.Generator().manual_seed(2))
    features = (directions[torch.arange(60) % 5] * scale)[None]
    alone = greedy_order(features, 40, torch.tensor([3]), objective=objective)
    for pictures in (2, 7, 33):
        others = drawn(60, 7, pictures, pictures)
        others[-1] = features[0]
        first = torch.full((pictures,), 3)
        assert torch.equal(greedy_order(others, 40, first, objective=objective)[-1], alone[0])
    for direction in range(5):
        own = [index for index in alone[0, 1:].tolist() if index % 5 == direction]
        assert own == sorted(own)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 1000))
def test_duplicates_are_chosen_last(different, copies, seed):
    directions = drawn(different, 8, seed)[0]
    place = torch.randperm(different * (copies + 1), generator=torch.Generator().manual_seed(seed))
    # Lengths do not count, directions do; a duplicate is at distance zero.
    features = (directions.repeat(copies + 1, 1) * torch.linspace(0.3, 3, len(place))[:, None])[place][None]
    order = greedy_order(features, len(place), torch.tensor([0]))[0]
    kinds = (place % different)[order]
    assert len(kinds[:different].unique()) == different
    assert float(covering_radius(features, order[None, :different])) == 0
    # Copies at distance zero tie, so that they follow in the order of their indices.
    assert order[different:].tolist() == sorted(order[different:].tolist())


def test_max_sum_goes_to_the_rim_where_max_min_covers():
    # A crowd in the middle and two opposite ends: after both ends, max-min wants the middle, max-sum an end's copy.
    angles = torch.tensor([0.0, 0.02, 1.57, 3.12, 3.14])
    features = torch.stack([angles.cos(), angles.sin()], 1)[None]
    first = torch.tensor([0])
    assert greedy_order(features, 3, first)[0].tolist() == [0, 4, 2]
    assert greedy_order(features, 3, first, objective="maxsum")[0].tolist()[:2] == [0, 4]


def test_a_common_direction_hides_nothing_once_the_mean_is_removed():
    own = torch.eye(4)[None]
    features = own + 100
    first = torch.tensor([0])
    assert float(covering_radius(features, first[:, None])) < 1e-4
    assert float(covering_radius(features, first[:, None], remove_mean=True)) > 1


def test_the_mean_pairwise_distance_is_the_mean_over_pairs():
    features = drawn(9, 4, 5, 2)
    chosen = torch.tensor([[0, 3, 4, 8], [1, 2, 5, 7]])
    between = all_distances(features)
    expected = [
        torch.stack([between[row, i, j] for i, j in combinations(chosen[row].tolist(), 2)]).mean() for row in (0, 1)
    ]
    torch.testing.assert_close(mean_pairwise_distance(features, chosen), torch.stack(expected))
    assert mean_pairwise_distance(features, chosen[:, :1]).tolist() == [0, 0]


def test_distances_are_those_of_cosines_and_exactly_zero_to_itself():
    features = drawn(6, 3, 8)
    units = unit_features(features)
    own = distances(units, units[:, 2])
    torch.testing.assert_close(own, all_distances(features)[:, 2], rtol=0, atol=1e-6)
    assert float(own[0, 2]) == 0


def test_what_cannot_be_chosen_is_named():
    features = drawn(4, 3, 0)
    with pytest.raises(SelectionError, match="5 of 4 tokens"):
        greedy_order(features, 5, torch.tensor([0]))
    with pytest.raises(SelectionError, match="expected 'maxmin' or 'maxsum'"):
        greedy_order(features, 2, torch.tensor([0]), objective="mean")
