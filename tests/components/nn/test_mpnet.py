"""MPNet's layer against BERT's, against PyTorch's attention with an additive mask, and its buckets by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.nn.bert import BertConfig, BertLayer
from components.nn.mpnet import MPNetLayer

CONFIG = BertConfig(vocabulary_size=2, width=24, layers=1, heads=3, mlp=40)
MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


@pytest.fixture
def layer() -> MPNetLayer:
    torch.manual_seed(0)
    return MPNetLayer(CONFIG)


@pytest.mark.parametrize("mask", [None, MASK])
def test_without_biases_it_is_berts_layer(layer, mask):
    with torch.no_grad():
        layer.relative.weight.zero_()
    plain = BertLayer(CONFIG)
    plain.load_state_dict({name: part for name, part in layer.state_dict().items() if not name.startswith("relative")})
    hidden = torch.randn(2, 7, 24)
    torch.testing.assert_close(layer(hidden, mask, plain=True), plain(hidden, mask, plain=True))


def test_biases_are_added_to_the_scores_as_the_librarys_additive_mask(layer):
    hidden = torch.randn(2, 7, 24)
    query, key, value = layer.query_key_value(hidden).view(2, 7, 3, 3, 8).permute(2, 0, 3, 1, 4)
    additive = layer.bias(7) + torch.zeros(2, 1, 1, 7).masked_fill(~MASK[:, None, None], -torch.inf)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=additive).transpose(1, 2).reshape(2, 7, 24)
    between = layer.attention_norm(hidden + layer.attention_output(mixed))
    expected = layer.mlp_norm(between + layer.mlp_output(F.gelu(layer.mlp_input(between))))
    torch.testing.assert_close(layer(hidden, MASK)[0][MASK], expected[MASK], atol=2e-6, rtol=1e-5)
    assert layer(hidden, MASK)[1] is None


def test_near_distances_have_biases_of_their_own_and_sides_differ(layer):
    with torch.no_grad():
        layer.relative.weight.copy_(torch.arange(32.0)[:, None].expand(32, 3))
    bias = layer.bias(300)[0]
    assert bias[10, 4:17].tolist() == [6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22]
    assert bias[0, 8:12].tolist() == [24, 24, 24, 24]
    assert bias[0, 200].item() == 31
    assert bias[299, 0].item() == 15
