import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.analysis.sticky_pairs import PairsError, evenly_spaced_pairs, mean_similarity, nearest_unused, pair_sets


def vectors(count: int, seed: int = 0, shift: float = 0.3) -> torch.Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + shift
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_the_mean_similarity_is_that_of_the_full_matrix_of_cosines():
    drawn = 3 * torch.randn(300, 12, generator=torch.Generator().manual_seed(1)) + 1
    unit = torch.nn.functional.normalize(drawn.double(), dim=-1)
    assert mean_similarity(drawn) == pytest.approx(float((unit @ unit.T).mean()), abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_each_grid_value_takes_the_nearest_that_is_left(values, data):
    values = np.sort(np.asarray(values))
    grid = np.asarray(data.draw(st.lists(st.floats(-0.5, 1.5), max_size=len(values))))
    taken = nearest_unused(values, grid)
    left = set(range(len(values)))
    for target, place in zip(grid, taken.tolist(), strict=True):
        assert place in left
        assert abs(values[place] - target) == min(abs(values[other] - target) for other in left)
        left.remove(place)


def test_pairs_are_distinct_sorted_and_spread_over_the_whole_range():
    unit = vectors(40)
    pairs = evenly_spaced_pairs(unit, 50)
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))) == 50
    assert (np.diff(pairs.similarity) >= 0).all()
    cosines = (unit.double() @ unit.double().T).numpy()
    np.testing.assert_allclose(pairs.similarity, cosines[pairs.first, pairs.second])
    everything = cosines[np.triu_indices(40, 1)]
    assert pairs.similarity[0] == everything.min()
    assert pairs.similarity[-1] == everything.max()
    grid = np.linspace(everything.min(), everything.max(), 50)
    assert np.abs(pairs.similarity - grid).max() < 0.05


def test_pairs_stay_sorted_where_grid_values_compete_for_them():
    pairs = evenly_spaced_pairs(vectors(12), 60)  # of 66: the nearest is often taken
    assert len(pairs) == 60
    assert (np.diff(pairs.similarity) >= 0).all()


def test_sets_are_disjoint_and_on_their_sides_of_the_centre():
    unit, centre = vectors(60), 0.4
    sets = pair_sets(unit, centre, scoring=5, verification=40, above=7)
    named = [set(zip(each.first.tolist(), each.second.tolist(), strict=True)) for each in vars(sets).values()]
    assert [len(each) for each in named] == [5, 40, 7]
    assert len(set.union(*named)) == 52
    lowest = evenly_spaced_pairs(unit).similarity[0]
    for below in (sets.scoring, sets.verification):
        assert (np.diff(below.similarity) >= 0).all()
        assert below.similarity.max() < lowest + 0.8 * (centre - lowest)
    assert sets.above.similarity.min() > centre


def test_too_few_pairs_on_a_side_are_refused():
    with pytest.raises(PairsError, match=r"2000 pairs below u = 0\.400 are wanted"):
        pair_sets(vectors(60), 0.4, scoring=1000, verification=1000)
    with pytest.raises(PairsError, match="5 pairs are wanted, there are 3"):
        nearest_unused(np.arange(3.0), np.arange(5.0))
