"""The layers of BERT against PyTorch's own post-norm encoder layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.nn.bert import BertConfig, BertEmbeddings, BertError, BertLayer

CONFIG = BertConfig(vocabulary_size=19, width=24, layers=1, heads=3, mlp=40, positions=11)
MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


@pytest.fixture
def layer() -> BertLayer:
    torch.manual_seed(0)
    return BertLayer(CONFIG)


def library(layer: BertLayer) -> nn.TransformerEncoderLayer:
    theirs = nn.TransformerEncoderLayer(24, 3, 40, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True)
    pairs = {
        theirs.self_attn.out_proj: layer.attention_output,
        theirs.linear1: layer.mlp_input,
        theirs.linear2: layer.mlp_output,
        theirs.norm1: layer.attention_norm,
        theirs.norm2: layer.mlp_norm,
    }
    for target, source in pairs.items():
        target.load_state_dict(source.state_dict())
    theirs.self_attn.in_proj_weight.data = layer.query_key_value.weight.data
    theirs.self_attn.in_proj_bias.data = layer.query_key_value.bias.data
    return theirs


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
def test_a_layer_is_the_librarys_post_norm_layer(layer, plain, mask):
    hidden = torch.randn(2, 7, 24)
    ours, _ = layer(hidden, mask, plain=plain)
    theirs = library(layer)(hidden, src_key_padding_mask=None if mask is None else ~mask)
    tokens = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(ours[tokens], theirs[tokens], atol=2e-6, rtol=1e-5)


def test_attention_is_that_of_the_library_and_never_looks_at_padding(layer):
    hidden = torch.randn(2, 7, 24)
    _, attention = layer(hidden, MASK, plain=True)
    theirs = library(layer).self_attn(
        hidden, hidden, hidden, key_padding_mask=~MASK, need_weights=True, average_attn_weights=False
    )[1]
    torch.testing.assert_close(attention, theirs)
    assert (attention[1, :, :, 4:] == 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 3, 7))


def test_plain_attention_has_forward_derivatives_that_agree_with_finite_differences(layer):
    layer = layer.double()
    hidden, direction = torch.randn(2, 1, 7, 24, dtype=torch.float64)
    function = lambda x: layer(x, plain=True)[0]  # noqa: E731
    _, derivative = torch.func.jvp(function, (hidden,), (direction,))
    step = 1e-5
    differences = (function(hidden + step * direction) - function(hidden - step * direction)) / (2 * step)
    torch.testing.assert_close(derivative, differences, atol=1e-7, rtol=1e-6)


def test_embeddings_are_normalised_sums_of_three_tables():
    torch.manual_seed(0)
    embeddings = BertEmbeddings(CONFIG)
    ids = torch.tensor([[3, 5, 3]])
    summed = embeddings.word.weight[ids[0]] + embeddings.position.weight[:3] + embeddings.segment.weight[0]
    centred = summed - summed.mean(-1, keepdim=True)
    torch.testing.assert_close(embeddings(ids)[0], centred / centred.square().mean(-1, keepdim=True).sqrt())


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(BertError, match="12 tokens a text; the encoder has 11 positions"):
        BertEmbeddings(CONFIG)(torch.zeros(1, 12, dtype=torch.int64))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(BertError, match="width 25 is not a multiple of heads 3"):
        BertConfig(19, 25, 1, 3, 40)
