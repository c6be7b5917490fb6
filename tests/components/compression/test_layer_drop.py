"""Dropping visual tokens in a layer: ratios by hand, packed questions against single ones, the ends of the sweep."""

import math

import pytest
import torch
from small_vlm import LAYERS, QUESTIONS, packed, single, small_vlm, visual_tokens

from components.compression import fastv, layer_drop
from components.compression.kcenter import greedy_order
from components.compression.layer_drop import DropError, DropRule, attention_rows, layout_of, migration
from components.multimodal.packed_qa import PackedBatch
from components.nn.attention_map import attention_map


@pytest.fixture(scope="module")
def model():
    return small_vlm()


@pytest.fixture(scope="module")
def states(model):
    """What the second block reads, with the batch."""
    text = packed()
    prepared = model.prepare(visual_tokens(model), text)
    with torch.no_grad():
        tokens = model.blocks[0](prepared.tokens, prepared.mask, False, prepared.angles, None, None, None)
    return text, prepared, tokens


def test_the_layout_says_which_question_a_token_belongs_to_and_where_it_ends():
    text = packed()
    layout = layout_of(text, 9)
    ends = [5, 11, 17, 5, 13]
    assert layout.scene.tolist() == [0, 0, 0, 1, 1]
    assert layout.owner[0].tolist() == [0] * 5 + [1] * 6 + [2] * 6
    assert layout.owner[1].tolist() == [3] * 5 + [4] * 8 + [5] * 4
    assert layout.last.tolist() == [[9 + end for end in ends[:3]], [*(9 + end for end in ends[3:]), 0]]
    assert layout.number.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_recomputed_rows_are_those_of_the_whole_map_with_mask_and_rotation(model, states):
    _, prepared, tokens = states
    block = model.blocks[1]
    rows = torch.tensor([[3, 12, 26, 0], [25, 1, 9, 14]])
    got = attention_rows(block, tokens, rows, mask=prepared.mask, angles=prepared.angles)
    whole = attention_map(block, tokens, mask=prepared.mask, angles=prepared.angles).mean(1)
    torch.testing.assert_close(got, torch.stack([whole[0, rows[0]], whole[1, rows[1]]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(got.sum(-1), torch.ones(2, 4))


def by_hand(block, tokens, prepared, visual: int, last: bool = False):
    """The ratios of one question alone, from the whole map of its sequence, by their definition."""
    weights = attention_map(block, tokens, mask=prepared.mask, angles=prepared.angles)[0].mean(0).detach()
    size = len(weights)
    seen, text = range(1, 1 + visual), range(size - 1 if last else 1 + visual, size)
    words = range(1 + visual, size)
    total = sum(float(weights[i, j]) for i in text for j in range(size))
    parts = [sum(float(weights[i, j]) for i in text for j in columns) / total for columns in (seen, words, [0])]
    from_visual = sum(float(weights[i, j]) for i in seen for j in range(size))
    to_text = sum(float(weights[i, j]) for i in seen for j in words)
    return [*parts, to_text / from_visual]


@pytest.mark.parametrize("rows", ["all", "last"])
@torch.no_grad()
def test_the_ratios_of_packed_questions_are_those_of_each_question_alone(model, rows):
    visual = visual_tokens(model)
    got = layer_drop.migrations(model, model.prepare(visual, packed()), packed(), rows)
    assert len(got) == LAYERS
    for number, (scene, _, question, _) in enumerate(QUESTIONS.iter_rows()):
        text = single(question)
        prepared = model.prepare(visual[scene : scene + 1], text)
        tokens = prepared.tokens
        for layer, block in enumerate(model.blocks):
            expected = by_hand(block, tokens, prepared, 9, rows == "last")
            found = [float(part[number]) for part in got[layer]]
            assert found == pytest.approx(expected, abs=1e-5)
            tokens = block(tokens, prepared.mask, False, prepared.angles, None, None, None)


def test_ratios_are_shares_and_those_of_the_text_sum_to_one(model):
    text = packed()
    for found in layer_drop.migrations(model, model.prepare(visual_tokens(model), text), text):
        torch.testing.assert_close(sum(found[:3]), torch.ones(5))
        assert all(((part >= 0) & (part <= 1)).all() for part in found)
        # A picture in front of the text never attends to it.
        assert (found.visual_to_text == 0).all()


def test_visual_tokens_that_see_the_text_are_counted_too(model):
    text = single("what is the red?")
    prepared = model.prepare(visual_tokens(model)[:1], text)
    both_ways = prepared._replace(mask=torch.ones_like(prepared.mask))
    block = model.blocks[2]
    layout = layout_of(text, 9)
    found = migration(block, prepared.tokens, both_ways.mask, prepared.angles, layout)
    expected = by_hand(block, prepared.tokens, both_ways, 9)
    assert expected[3] > 0.05
    assert [float(part[0]) for part in found] == pytest.approx(expected, abs=1e-5)
    # Both must be small: with the text blind to the picture, the picture still holds the rule back.
    mask = both_ways.mask.clone()
    mask[:, :, 10:, 1:10] = False
    arguments = (block, prepared.tokens, mask, prepared.angles, layout)
    assert not DropRule((2,), expected[3] / 2).fires(*arguments).item()
    assert DropRule((2,), 0.999).fires(*arguments).item()


def test_dropping_behind_the_last_layer_changes_nothing(model):
    text = packed()
    prepared = model.prepare(visual_tokens(model), text)
    with torch.no_grad():
        read = layer_drop.read(model, prepared, text, DropRule((LAYERS,)))
        assert torch.equal(read.states, model.read(prepared))
    assert read.layers.tolist() == [LAYERS] * 5


def test_dropping_before_the_first_layer_is_the_model_without_a_picture_at_the_original_places(model):
    text = packed()
    with torch.no_grad():
        prepared = model.prepare(visual_tokens(model), text)
        dropped = model.predicted(layer_drop.read(model, prepared, text, DropRule((0,))).states, text)
        nothing = torch.empty(2, 0, 16)
        blind = model.predicted(model.read(model.prepare(nothing, text, text_place=10)), text)
        moved = model.predicted(model.read(model.prepare(nothing, text)), text)
    torch.testing.assert_close(dropped, blind, rtol=1e-4, atol=1e-5)
    # Among themselves the words are as far apart, but the start token is not: places count.
    assert (dropped - moved).abs().max() > 1e-3


@pytest.mark.parametrize("layer", range(LAYERS + 1))
def test_every_layer_of_the_sweep_is_that_drop(model, layer):
    text = packed()
    prepared = model.prepare(visual_tokens(model), text)
    with torch.no_grad():
        swept = layer_drop.read_each(model, prepared, text)
        read = layer_drop.read(model, prepared, text, DropRule((layer,)))
    assert len(swept) == LAYERS + 1
    torch.testing.assert_close(
        model.predicted(swept[layer], text), model.predicted(read.states, text), rtol=1e-5, atol=1e-5
    )


def test_a_question_loses_its_picture_exactly_where_its_own_ratios_say(model):
    text, visual = packed(), visual_tokens(model)
    prepared = model.prepare(visual, text)
    with torch.no_grad():
        shares = torch.stack([found.text_to_visual for found in layer_drop.migrations(model, prepared, text)])
        checked = (1, 3)
        threshold = float(shares[1].sort().values[1:3].mean())
        read = layer_drop.read(model, prepared, text, DropRule(checked, threshold))
        together = model.predicted(read.states, text)
        for number, (scene, _, question, _) in enumerate(QUESTIONS.iter_rows()):
            fired = [layer for layer in checked if float(shares[layer, number]) < threshold]
            expected = fired[0] if fired else LAYERS
            assert int(read.layers[number]) == expected
            own = single(question)
            alone = model.prepare(visual[scene : scene + 1], own)
            logits = model.predicted(layer_drop.read(model, alone, own, DropRule((expected,))).states, own)
            torch.testing.assert_close(together[number : number + 1], logits, rtol=1e-4, atol=1e-5)
    assert len(set(read.layers.tolist())) > 1


def test_a_threshold_that_nothing_meets_leaves_every_token_in_place(model):
    text = packed()
    prepared = model.prepare(visual_tokens(model), text)
    with torch.no_grad():
        read = layer_drop.read(model, prepared, text, DropRule((1, 2, 3), 0.0))
        assert torch.equal(read.states, model.read(prepared))
    assert (read.layers == LAYERS).all()


def test_rules_that_do_not_fit_the_model_are_refused(model):
    text = packed()
    prepared = model.prepare(visual_tokens(model), text)
    for layers in ((LAYERS + 1,), (-1,), ()):
        with pytest.raises(DropError, match=f"expected some of 0 to {LAYERS}"):
            layer_drop.read(model, prepared, text, DropRule(layers, math.inf))


@pytest.mark.gpu
@torch.no_grad()
def test_the_device_changes_no_decision():
    text = packed()
    readings, swept, choices, kept = {}, {}, {}, {}
    for device in ("cpu", "cuda"):
        own = small_vlm().to(device)
        visual, batch = visual_tokens(own).to(device), PackedBatch(*(part.to(device) for part in text))
        prepared = own.prepare(visual, batch)
        shares = layer_drop.migrations(own, prepared, batch)[1].text_to_visual
        threshold = 0.5 * float(shares.sort().values[1:3].sum())
        readings[device] = layer_drop.read(own, prepared, batch, DropRule((1, 3), threshold))
        swept[device] = own.predicted(layer_drop.read_each(own, prepared, batch)[2], batch)
        choices[device] = greedy_order(visual, 5, torch.tensor([0, 3], device=device))
        kept[device] = fastv.read(own, prepared, batch, 3).kept
    assert torch.equal(readings["cuda"].layers.cpu(), readings["cpu"].layers)
    torch.testing.assert_close(readings["cuda"].states.cpu(), readings["cpu"].states, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(swept["cuda"].cpu(), swept["cpu"], rtol=1e-3, atol=1e-3)
    assert torch.equal(choices["cuda"].cpu(), choices["cpu"])
    assert torch.equal(kept["cuda"].cpu(), kept["cpu"])
