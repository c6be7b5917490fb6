import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.speculative.tree import DraftTree, TreeError, chain, recycling_tree

paths = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=12).map(
    lambda found: {path[:length] for path in found for length in range(1, len(path) + 1)}
)


def test_the_recycling_tree_has_80_drafts_in_levels_of_8_21_25_15_8_and_3():
    tree = recycling_tree()
    assert tree.nodes == 81
    assert tree.depths.bincount().tolist() == [1, 8, 21, 25, 15, 8, 3]
    assert [level.stop - level.start for level in tree.levels] == [8, 21, 25, 15, 8, 3]
    assert len(set(tree.paths)) == 81
    assert all(path[:-1] in tree.paths for path in tree.paths[1:])
    assert int(tree.ancestors.sum()) == int((tree.depths + 1).sum())
    assert int(tree.candidates.max()) == 7


@settings(deadline=None, derandomize=True, max_examples=40)
@given(paths)
def test_parents_masks_and_leaves_are_those_of_the_paths(found):
    tree = DraftTree(found)
    assert set(tree.paths[1:]) == found
    for node, path in enumerate(tree.paths):
        beginnings = [tree.paths.index(path[:length]) for length in range(len(path) + 1)]
        assert tree.ancestors[node].nonzero()[:, 0].tolist() == sorted(beginnings)
        assert tree.paths[int(tree.parents[node])] == path[:-1]
        assert tree.depths[node] == len(path)
        assert not path or tree.candidates[node] == path[-1]
        leaf = not any(other[:-1] == path for other in tree.paths[1:])
        padded = [*beginnings, *[-1] * (tree.depth + 1 - len(beginnings))]
        assert (padded in tree.leaves.tolist()) == leaf


@settings(deadline=None, derandomize=True, max_examples=40)
@given(paths, st.integers(0, 5))
def test_filling_level_by_level_is_looking_each_node_up_in_its_parents_row(found, root):
    tree = DraftTree(found)
    table = torch.randint(6, (6, 4), dtype=torch.int32, generator=torch.Generator().manual_seed(root))
    tokens = tree.fill(table, root)
    for node, path in enumerate(tree.paths):
        token = root
        for candidate in path:
            token = int(table[token, candidate])
        assert int(tokens[node]) == token


def test_the_mask_sees_every_verified_token_and_the_ancestors_however_many_there_are():
    tree = recycling_tree()
    for past in (3, 100, 7, 0, 101, 250):
        mask = tree.mask(past)
        assert mask.shape == (81, past + 81)
        assert bool(mask[:, :past].all())
        assert torch.equal(mask[:, past:], tree.ancestors)


def test_a_mask_that_fits_is_a_view_and_copies_nothing():
    tree = recycling_tree()
    long = tree.mask(200)
    assert tree.mask(150).data_ptr() == long[:, 50:].data_ptr()


def test_trees_are_cut_to_their_first_nodes_to_low_candidates_and_to_a_chain():
    tree = recycling_tree()
    assert tree.first(24).paths == tree.paths[:25]
    assert tree.first(8).depth == 1
    assert all(max(path) < 2 for path in tree.below(2).paths[1:])
    assert set(tree.below(2).paths) == {path for path in tree.paths if not path or max(path) < 2}
    assert chain(6).paths == ((), (0,), (0, 0), (0,) * 3, (0,) * 4, (0,) * 5, (0,) * 6)
    assert chain(0).nodes == 1


def test_paths_without_parents_and_paths_given_twice_are_refused():
    with pytest.raises(TreeError, match=r"parents of \[\(0, 1\)\]"):
        DraftTree([(0, 1)])
    with pytest.raises(TreeError, match="twice"):
        DraftTree([(0,), (0,)])
