"""The vision-language model: cells, places, what is seen, and what its parts give when they are run by hand."""

import pytest
import torch

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.multimodal.contrastive import PatchHeads, found_first, info_nce
from components.multimodal.grounding import Grounded
from components.multimodal.vlm import VLM, VlmError, text_batch
from components.multimodal.words import WordVocabulary

WORDS = WordVocabulary(["?", "is", "it", "red", "yes"])


def language(**changes) -> CausalLM:
    settings = {"tied": True, "positions": "rotary", "norm": "rms", **changes}
    made = CausalLM(CausalLMConfig(len(WORDS), 40, 8, 2, 2, **settings))
    torch.nn.init.normal_(made.embedding.weight, std=1.0)
    return made


def model(merge: int = 1, rows: int = 4) -> VLM:
    torch.manual_seed(0)
    return VLM(
        language=language(), words=WORDS.entries, rows=rows, feature_width=3, merge=merge, encoder="shapes-vit"
    ).eval()


TEXT = text_batch(WORDS, "is it red?")


def test_a_merged_cell_joins_its_patches_row_by_row():
    features = torch.arange(16.0)[None, :, None].expand(1, 16, 3)
    cells = model(merge=2).cells(features)
    assert cells.shape == (1, 4, 12)
    assert cells[0, 1, ::3].tolist() == [2, 3, 6, 7]
    assert cells[0, 2, ::3].tolist() == [8, 9, 12, 13]


def test_the_sequence_is_start_visual_tokens_and_text():
    vlm = model()
    visual = torch.randn(1, 5, 8)
    prepared = vlm.prepare(visual, TEXT)
    assert prepared.tokens.shape == (1, 1 + 5 + 5, 8)
    torch.testing.assert_close(prepared.tokens[:, 1:6], visual)
    with torch.no_grad():
        tokens = torch.cat([torch.tensor([[vlm.language.start_token]]), TEXT.tokens], 1)
        # Without visual tokens it is the plain language model.
        plain = vlm.language(tokens)[:, -1]
        torch.testing.assert_close(vlm(torch.empty(1, 0, 8), TEXT), plain)


def test_text_moves_with_the_number_of_visual_tokens_and_can_be_told_not_to():
    vlm = model()
    few = torch.randn(1, 3, 8)
    moved = vlm.prepare(few, TEXT).angles
    torch.testing.assert_close(moved[:, 0, 0], vlm.language.angles[:, :9])
    kept = vlm.prepare(few, TEXT, places=torch.tensor([2, 7, 9]), text_place=17).angles
    torch.testing.assert_close(kept[:, 0, 0], vlm.language.angles[:, [0, 2, 7, 9, 17, 18, 19, 20, 21]])


def test_an_unseen_token_is_as_good_as_absent_when_places_are_kept():
    vlm = model()
    visual, left = torch.randn(1, 6, 8), [0, 2, 5]
    seen = torch.zeros(1, 6, dtype=torch.bool)
    seen[:, left] = True
    with torch.no_grad():
        hidden = vlm.predicted(vlm.read(vlm.prepare(visual, TEXT, seen=seen)), TEXT)
        places = torch.tensor(left) + 1
        gone = vlm.predicted(vlm.read(vlm.prepare(visual[:, left], TEXT, places=places, text_place=7)), TEXT)
    torch.testing.assert_close(hidden, gone, rtol=1e-4, atol=1e-5)


def test_running_the_blocks_by_hand_with_the_prepared_mask_gives_the_same_states():
    vlm = model()
    prepared = vlm.prepare(torch.randn(2, 4, 8), type(TEXT)(*(part.expand(2, -1) for part in TEXT[:3]), *TEXT[3:]))
    with torch.no_grad():
        tokens = prepared.tokens
        for block in vlm.blocks:
            tokens = block(tokens, prepared.mask, False, prepared.angles, None, None, None)
        torch.testing.assert_close(vlm.language.transformer.norm(tokens), vlm.read(prepared))


def test_the_projector_takes_its_scale_from_features():
    vlm = model()
    features = torch.randn(50, 16, 3) * torch.tensor([1.0, 10.0, 100.0]) + 5
    vlm.projector.start_from(features)
    scaled = (features - vlm.projector.mean) / vlm.projector.deviation
    torch.testing.assert_close(scaled.flatten(0, 1).std(0), torch.ones(3), rtol=1e-3, atol=1e-3)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(VlmError, match="merge 3 does not divide"):
        model(merge=3)
    with pytest.raises(VlmError, match="expected rotary"):
        VLM(language=language(positions="learned"), words=WORDS.entries, rows=2, feature_width=3, merge=1, encoder="")
    with pytest.raises(VlmError, match="6 words, but the language model has 8"):
        VLM(language=language(), words=["a", "b", "c"], rows=2, feature_width=3, merge=1, encoder="")


def test_grounding_reads_the_visual_states_in_the_order_of_the_joined_patches():
    grounded = Grounded(model(merge=2), (3, 2))
    states, labels = torch.randn(1, 1 + 4 + 2, 8), torch.zeros(1, 16, 2, dtype=torch.int64)
    labels[0, 7, 0] = 2  # second row, fourth column: second cell, its fourth patch
    grounded.heads.linear.weight.data.zero_()
    bias = grounded.heads.linear.bias.data.view(4, 5)
    bias.zero_()
    bias[3, 2] = 20.0
    wrong = grounded.loss(states, labels)
    bias[3, :3] = torch.tensor([20.0, 0, 0])
    # Of four cells three show nothing at their fourth patch: the heads do not see which cell they are asked about.
    assert grounded.loss(states, labels) > 0
    assert float(wrong.detach()) == pytest.approx(float(_balanced(labels, fourth=2).sum()), rel=1e-4)


def _balanced(labels: torch.Tensor, fourth: int) -> torch.Tensor:
    """The loss by hand: uniform logits, except that the fourth patch of every cell says `fourth` for sure."""
    grid = labels.view(4, 4, 2)
    nats = torch.full((4, 4, 2), float(torch.tensor(2.0).log()))
    nats[..., 0] = float(torch.tensor(3.0).log())
    for row, column in ((1, 1), (1, 3), (3, 1), (3, 3)):
        nats[row, column, 0] = 0.0 if int(grid[row, column, 0]) == fourth else 20.0
    totals = []
    for attribute in range(2):
        for group in (grid[..., attribute] > 0, grid[..., attribute] == 0):
            totals.append(nats[..., attribute][group].sum() / max(1, int(group.sum())) / 2)
    return torch.stack(totals)


def test_patches_that_show_something_weigh_as_much_as_all_others():
    heads = PatchHeads(2, (2,))
    heads.linear.weight.data.zero_()
    heads.linear.bias.data = torch.tensor([5.0, 0.0])
    labels = torch.zeros(1, 10, 1, 1, dtype=torch.int64)
    labels[0, 0] = 1
    nats = -torch.log_softmax(heads.linear.bias.data, 0)
    expected = (nats[1] + nats[0]) / 2
    torch.testing.assert_close(heads.loss(torch.zeros(1, 10, 2), labels).detach(), expected)


def test_info_nce_is_the_cross_entropy_of_finding_the_partner_both_ways():
    similarities = torch.randn(3, 3)
    by_hand = 0.0
    for index in range(3):
        by_hand -= similarities[index].log_softmax(0)[index] + similarities[:, index].log_softmax(0)[index]
    torch.testing.assert_close(info_nce(similarities), by_hand / 6)


def test_equal_captions_count_as_one_when_they_are_found():
    images = torch.eye(3)
    texts = torch.eye(3)[[0, 2, 1]]
    assert found_first(images, texts).tolist() == [True, False, False]
    assert found_first(images, texts, torch.tensor([0, 7, 7])).tolist() == [True, True, True]
