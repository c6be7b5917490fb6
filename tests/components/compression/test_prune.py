"""Selections: one interface, raster order, and what each of them keeps."""

import inspect

import pytest
import torch

from components.compression import pool, prune
from components.compression.kcenter import SelectionError, greedy_order
from components.nn.vit import PatchViT

NAMES = ("kcenter", "maxsum", "cls_topk", "random", "uniform")
FEATURES = torch.randn(3, 144, 16, generator=torch.Generator().manual_seed(0))
ATTENTION = torch.rand(3, 144, generator=torch.Generator().manual_seed(1))


def selection(name: str, **settings) -> prune.Select:
    return prune.build(name, generator=torch.Generator().manual_seed(4), **settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 14, 29, 48, 72, 144])
def test_every_selection_keeps_so_many_different_tokens_in_raster_order(name, count):
    kept = selection(name)(FEATURES, ATTENTION, count)
    assert kept.shape == (3, count)
    assert kept.dtype == torch.int64
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < 144


@pytest.mark.parametrize("name", NAMES)
def test_no_selection_can_see_a_question(name):
    assert list(inspect.signature(prune.build(name)).parameters)[:3] == ["features", "attention", "count"]
    once, again = (selection(name)(FEATURES, ATTENTION, 14) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("name", ["kcenter", "maxsum", "cls_topk", "uniform"])
def test_a_picture_keeps_the_same_tokens_alone_and_in_a_batch(name):
    together = selection(name)(FEATURES, ATTENTION, 29)
    for row in range(3):
        own = slice(row, row + 1)
        assert torch.equal(selection(name)(FEATURES[own], ATTENTION[own], 29), together[own])


def test_kcenter_is_the_greedy_choice_from_the_start():
    kept = selection("kcenter")(FEATURES, ATTENTION, 14)
    first = ATTENTION.argmax(1)
    assert torch.equal(kept, greedy_order(FEATURES, 14, first).sort(1).values)
    assert (kept == first[:, None]).any(1).all()
    summed = selection("maxsum")(FEATURES, ATTENTION, 14)
    assert torch.equal(summed, greedy_order(FEATURES, 14, first, objective="maxsum").sort(1).values)
    centred = selection("kcenter", remove_mean=True)(FEATURES + 10, ATTENTION, 14)
    assert torch.equal(centred, greedy_order(FEATURES + 10, 14, first, remove_mean=True).sort(1).values)


def test_the_start_is_what_it_says():
    # A bundle around one direction: its middle is nearest to the mean, the token opposite is the farthest.
    features = torch.tensor([[[1.0, 0.3], [1.0, 0.0], [1.0, -0.3], [-1.0, 0.1]]])
    attention = torch.tensor([[0.1, 0.2, 0.6, 0.1]])
    assert prune.pivot(features, attention, "cls_max").tolist() == [2]
    assert prune.pivot(features, None, "center").tolist() == [1]
    assert prune.pivot(features, None, "far_mean").tolist() == [3]
    generator = torch.Generator().manual_seed(0)
    starts = prune.pivot(features.expand(400, -1, -1), None, "random", generator).bincount(minlength=4)
    assert (starts > 60).all()


def test_tiles_start_in_their_thumbnail():
    attention = ATTENTION.clone()
    attention[:, 36:] = -torch.inf
    assert (prune.pivot(FEATURES, attention, "cls_max") < 36).all()


def test_cls_topk_keeps_the_largest_and_of_equal_ones_the_first():
    attention = torch.tensor([[0.1, 0.5, 0.5, 0.5, 0.2]])
    assert prune.cls_topk(torch.zeros(1, 5, 2), attention, 2).tolist() == [[1, 2]]
    kept = prune.cls_topk(FEATURES, ATTENTION, 48)
    least = ATTENTION.gather(1, kept).amin(1)
    assert torch.equal((least[:, None] <= ATTENTION).sum(1), torch.full((3,), 48))


@pytest.mark.parametrize("count", [1, 4, 9, 16, 36, 144])
def test_an_even_grid_of_a_square_is_the_one_of_pooling(count):
    assert torch.equal(prune.uniform(FEATURES, None, count)[0], pool.uniform(FEATURES, count))


@pytest.mark.parametrize("count", [14, 29, 48, 72])
def test_an_even_grid_leaves_no_part_of_the_picture_out(count):
    kept = prune.uniform(FEATURES, None, count)[0]
    places = torch.stack([kept // 12, kept % 12], 1).double()
    every = torch.cartesian_prod(torch.arange(12), torch.arange(12)).double()
    away = (every[:, None] - places).abs().amax(2).amin(1)
    assert away.max() <= 12 / int(count**0.5) / 2 + 1


def test_random_draws_differ_and_every_token_is_as_likely():
    draw = selection("random")
    features = torch.zeros(4000, 10, 1)
    shares = torch.bincount(draw(features, None, 3).flatten(), minlength=10) / 4000
    torch.testing.assert_close(shares, torch.full((10,), 0.3), rtol=0, atol=0.04)
    assert not torch.equal(draw(FEATURES, None, 14), draw(FEATURES, None, 14))


def test_class_attention_is_the_heads_mean_of_the_last_blocks_first_row():
    torch.manual_seed(0)
    encoder = PatchViT(image_side=8, patch_size=4, width=8, layers=2, heads=2).eval()
    tokens = torch.randn(2, 5, 8)
    block = encoder.blocks[1]
    normed = block.attention_norm(tokens)
    query, key = block.attention.queries(normed), block.attention.project(normed)[0]
    by_hand = (query @ key.transpose(2, 3) / 2).softmax(-1).mean(1)[:, 0, 1:]
    torch.testing.assert_close(prune.class_attention(encoder, tokens), by_hand)


def test_what_cannot_be_selected_is_named():
    with pytest.raises(SelectionError, match="Did you mean 'kcenter'"):
        prune.build("kcentre")
    with pytest.raises(SelectionError, match="needs the attention of a class token"):
        prune.cls_topk(FEATURES, None, 3)
    with pytest.raises(SelectionError, match="can start from 'random'"):
        prune.build("kcenter")(FEATURES, None, 3)
    with pytest.raises(SelectionError, match="needs a generator"):
        prune.build("random")(FEATURES, None, 3)
    with pytest.raises(SelectionError, match="needs a generator"):
        prune.build("kcenter", start="random")(FEATURES, None, 3)
    with pytest.raises(SelectionError, match="expected 'cls_max'"):
        prune.build("kcenter", start="middle")(FEATURES, None, 3)
    for name in NAMES:
        with pytest.raises(SelectionError, match="0 of 144 tokens"):
            selection(name)(FEATURES, ATTENTION, 0)
