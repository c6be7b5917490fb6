"""FastV against one question at a time, with its definition spelled out."""

import pytest
import torch
from small_vlm import QUESTIONS, packed, single, small_vlm, visual_tokens

from components.compression import fastv
from components.compression.kcenter import SelectionError
from components.nn.attention_map import attention_map

MODEL = small_vlm()


def alone(scene: int, question: str, count: int, after: int) -> tuple[torch.Tensor, list[int]]:
    text = single(question)
    prepared = MODEL.prepare(visual_tokens(MODEL)[scene : scene + 1], text)
    tokens, angles, mask = prepared.tokens, prepared.angles, prepared.mask
    for block in MODEL.blocks[:after]:
        weights = attention_map(block, tokens, mask=mask, angles=angles)[0].mean(0)
        tokens = block(tokens, mask, False, angles, None, None, None)
    kept = sorted(sorted(range(9), key=lambda place: -float(weights[-1, 1 + place]))[:count])
    left = torch.tensor([0, *(1 + place for place in kept), *range(10, tokens.shape[1])])
    tokens, angles, mask = tokens[:, left], angles[..., left, :], mask[:, :, left][..., left]
    for block in MODEL.blocks[after:]:
        tokens = block(tokens, mask, False, angles, None, None, None)
    return MODEL.logits(MODEL.language.transformer.norm(tokens[:, -1])), kept


@pytest.mark.parametrize(("count", "after"), [(1, 2), (4, 2), (8, 1), (3, 4)])
@torch.no_grad()
def test_packed_questions_keep_and_answer_what_each_would_alone(count, after):
    text = packed()
    read = fastv.read(MODEL, MODEL.prepare(visual_tokens(MODEL), text), text, count, after)
    logits = MODEL.logits(read.states)
    for number, (scene, _, question, _) in enumerate(QUESTIONS.iter_rows()):
        expected, kept = alone(scene, question, count, after)
        assert read.kept[number].tolist() == kept
        torch.testing.assert_close(logits[number : number + 1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_keeping_every_token_is_the_whole_model():
    text = packed()
    prepared = MODEL.prepare(visual_tokens(MODEL), text)
    read = fastv.read(MODEL, prepared, text, 9)
    expected = MODEL.predicted(MODEL.read(prepared), text)
    torch.testing.assert_close(MODEL.logits(read.states), expected, rtol=1e-4, atol=1e-5)
    assert read.kept.tolist() == [list(range(9))] * 5


def test_questions_of_one_picture_keep_tokens_of_their_own():
    text = packed()
    with torch.no_grad():
        kept = fastv.read(MODEL, MODEL.prepare(visual_tokens(MODEL), text), text, 2).kept[:3].tolist()
    assert len({tuple(each) for each in kept}) > 1


def test_what_cannot_be_kept_is_named():
    text = packed()
    prepared = MODEL.prepare(visual_tokens(MODEL), text)
    with pytest.raises(SelectionError, match="10 of 9 visual tokens"):
        fastv.read(MODEL, prepared, text, 10)
    with pytest.raises(SelectionError, match="after is 5; expected 1 to 4"):
        fastv.read(MODEL, prepared, text, 2, after=5)
