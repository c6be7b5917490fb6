from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from components.nn.rotary import rotary_angles
from components.nn.transformer import Attention, KeyValueCache, Transformer, TransformerConfig, TransformerError


def build(seed: int = 0, **settings) -> Transformer:
    torch.manual_seed(seed)
    config = {"width": 32, "layers": 2, "heads": 4, **settings}
    model = Transformer(TransformerConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # trained models have no zero biases and unit scales
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


KINDS = [
    {"norm": "layer", "activation": "gelu"},
    {"norm": "rms", "activation": "swiglu", "bias": False, "mlp_ratio": 8 / 3},
    {"context_width": 24},
]


def context_of(model: Transformer, rows: int = 2) -> dict[str, Tensor]:
    width = model.config.context_width
    return {} if width is None else {"context": torch.randn(rows, 7, width)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [(1,) * 9, (4, 1, 1, 3), (9,)])
def test_decoding_with_a_cache_equals_one_full_pass(kind, chunks):
    model = build(causal=True, **kind)
    tokens, context = torch.randn(2, 9, 32), context_of(model)
    angles = rotary_angles(torch.arange(9), 8)
    with torch.no_grad():
        full = model(tokens, angles=angles, **context)
        cache, parts, at = KeyValueCache(capacity=9), [], 0
        for length in chunks:
            here = slice(at, at + length)
            parts.append(model(tokens[:, here], angles=angles[:, here], cache=cache, **context))
            at += length
    assert cache.length == 9
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-5, rtol=0)


def test_the_cache_respects_a_mask_over_cached_tokens():
    model = build(causal=True)
    tokens = torch.randn(2, 6, 32)
    padding = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    padding[1, ..., :2] = False
    with torch.no_grad():
        full = model(tokens, mask=padding)
        cache = KeyValueCache(6)
        model(tokens[:, :4], mask=padding[..., :4], cache=cache)
        rest = model(tokens[:, 4:], mask=padding, cache=cache)
    torch.testing.assert_close(rest, full[:, 4:], atol=1e-5, rtol=0)


def test_a_full_cache_says_so():
    model, cache = build(causal=True), KeyValueCache(3)
    with pytest.raises(TransformerError, match="holds 3 tokens, 4 were given"):
        model(torch.randn(1, 4, 32), cache=cache)


def test_a_cache_keeps_some_tokens_or_a_beginning_and_refuses_others():
    model = build(causal=True)
    tokens = torch.randn(2, 5, 32)
    kept, plain = KeyValueCache(8), KeyValueCache(8)
    model(tokens, cache=kept)
    model(tokens[:, :2], cache=plain)
    kept.keep(torch.tensor([0, 1, 4]))
    assert kept.length == 3
    kept.keep(torch.tensor([2]), after=2)  # stays where it is
    kept.truncate(2)
    following = torch.randn(2, 1, 32)
    assert torch.equal(model(following, cache=kept), model(following, cache=plain))
    with pytest.raises(TransformerError, match="not all among those from 0"):
        kept.keep(torch.tensor([0, 3]))
    with pytest.raises(TransformerError, match="from 2 on"):
        kept.keep(torch.tensor([1]), after=2)
    with pytest.raises(TransformerError, match="cannot be cut to 4"):
        kept.truncate(4)


@pytest.mark.parametrize("kind", KINDS)
def test_changing_later_tokens_leaves_earlier_outputs_bit_identical(kind):
    model = build(causal=True, **kind)
    tokens, context = torch.randn(2, 12, 32), context_of(model)
    changed = tokens.clone()
    changed[:, 7:] = 100 * torch.randn(2, 5, 32)
    with torch.no_grad():
        before, after = model(tokens, **context), model(changed, **context)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_no_gradient_flows_back_from_the_past_to_the_future():
    model = build(causal=True)
    tokens = torch.randn(1, 8, 32, requires_grad=True)
    model(tokens)[:, 3].sum().backward()
    assert tokens.grad[:, :4].abs().sum(-1).min() > 0
    assert torch.equal(tokens.grad[:, 4:], torch.zeros(1, 4, 32))


def test_without_positions_a_bidirectional_model_is_permutation_equivariant():
    model = build().double()
    tokens, order = torch.randn(2, 10, 32, dtype=torch.float64), torch.randperm(10)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[:, order], model(tokens[:, order]), atol=1e-12, rtol=0)


def brute_force_attention(attention: Attention, tokens: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
    """One query, one head, one key at a time, in float64."""
    width, heads = attention.output.in_features, attention.heads
    channels = width // heads
    query, key_value, output = attention.query, attention.key_value, attention.output
    rows = []
    for b in range(tokens.shape[0]):
        row = []
        for t in range(tokens.shape[1]):
            token = []
            for h in range(heads):
                part = slice(h * channels, (h + 1) * channels)
                q = (query.weight @ tokens[b, t] + query.bias)[part]
                scores, values = [], []
                for s in range(context.shape[1]):
                    projected = key_value.weight @ context[b, s] + key_value.bias
                    if allowed[b, t, s]:
                        scores.append(torch.dot(q, projected[:width][part]) / math.sqrt(channels))
                        values.append(projected[width:][part])
                weights = torch.stack(scores).exp()
                token.append((weights[:, None] * torch.stack(values)).sum(0) / weights.sum())
            row.append(output.weight @ torch.cat(token) + output.bias)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_masked_attention_equals_brute_force(seed, length, context_length, additive):
    torch.manual_seed(seed)
    attention = Attention(8, 2, 6, bias=True, dropout=0.0).double()
    tokens = torch.randn(2, length, 8, dtype=torch.float64)
    context = torch.randn(2, context_length, 6, dtype=torch.float64)
    allowed = torch.rand(2, length, context_length) < 0.6
    allowed[..., 0] = True
    mask = allowed[:, None]
    if additive:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    with torch.no_grad():
        computed = attention(attention.queries(tokens), *attention.project(context), mask, causal=False)
        torch.testing.assert_close(computed, brute_force_attention(attention, tokens, context, allowed))


def test_a_causal_flag_and_a_causal_mask_mean_the_same():
    causal, free = build(causal=True).double(), build().double()
    tokens = torch.randn(2, 6, 32, dtype=torch.float64)
    lower = torch.ones(6, 6, dtype=torch.bool).tril()
    additive = torch.zeros(6, 6, dtype=torch.float64).masked_fill(~lower, -math.inf)
    with torch.no_grad():
        expected = causal(tokens)
        for mask in (lower, additive, lower[None, None].expand(2, 4, 6, 6)):
            torch.testing.assert_close(free(tokens, mask=mask), expected)
        everything = torch.ones(6, 6, dtype=torch.bool)
        torch.testing.assert_close(causal(tokens, mask=everything), expected)
        torch.testing.assert_close(causal(tokens, mask=torch.zeros(6, 6, dtype=torch.float64)), expected)


@pytest.mark.parametrize("width", [None, 12])
def test_attention_equals_torch_multihead_attention_with_the_same_weights(width):
    torch.manual_seed(0)
    own = Attention(16, 4, width or 16, bias=True, dropout=0.0)
    peer = nn.MultiheadAttention(16, 4, batch_first=True, kdim=width, vdim=width)
    keys, values = own.key_value.weight.chunk(2)
    with torch.no_grad():
        if width is None:
            peer.in_proj_weight.copy_(torch.cat([own.query.weight, keys, values]))
        else:
            peer.q_proj_weight.copy_(own.query.weight)
            peer.k_proj_weight.copy_(keys)
            peer.v_proj_weight.copy_(values)
        peer.in_proj_bias.copy_(torch.cat([own.query.bias, own.key_value.bias]))
        peer.out_proj.weight.copy_(own.output.weight)
        peer.out_proj.bias.copy_(own.output.bias)
        tokens, context = torch.randn(3, 5, 16), torch.randn(3, 7, width or 16)
        allowed = torch.rand(5, 7) < 0.7
        allowed[:, 0] = True
        expected, _ = peer(tokens, context, context, attn_mask=~allowed, need_weights=False)
        computed = own(own.queries(tokens), *own.project(context), allowed, causal=False)
    torch.testing.assert_close(computed, expected, atol=1e-6, rtol=1e-5)


def test_a_block_equals_torch_encoder_layer_with_the_same_weights():
    model = build(layers=1)
    block = model.blocks[0]
    peer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    with torch.no_grad():
        attention = block.attention
        peer.self_attn.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
        peer.self_attn.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
        for own, other in [
            (attention.output, peer.self_attn.out_proj),
            (block.mlp.input, peer.linear1),
            (block.mlp.output, peer.linear2),
            (block.attention_norm, peer.norm1),
            (block.mlp_norm, peer.norm2),
        ]:
            other.load_state_dict(own.state_dict())
        tokens = torch.randn(2, 6, 32)
        torch.testing.assert_close(model(tokens), model.norm(peer.train()(tokens)), atol=1e-5, rtol=1e-5)


def test_masked_context_tokens_have_no_influence():
    model = build(context_width=24)
    tokens, context = torch.randn(2, 5, 32), torch.randn(2, 7, 24)
    allowed = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    allowed[..., 4:] = False
    changed = context.clone()
    changed[:, 4:] = 50.0
    with torch.no_grad():
        full = model(tokens, context=context, context_mask=allowed)
        assert torch.equal(full, model(tokens, context=changed, context_mask=allowed))
        torch.testing.assert_close(full, model(tokens, context=context[:, :4]), atol=1e-5, rtol=0)


def test_the_initial_residual_stream_does_not_grow_with_depth():
    spreads = []
    for layers in (2, 32):
        torch.manual_seed(0)
        model = Transformer(TransformerConfig(width=64, layers=layers, heads=4))
        tokens = torch.randn(4, 16, 64)
        stream = tokens
        with torch.no_grad():
            for block in model.blocks:
                stream = block(stream, None, False, None, None, None, None)
        spreads.append(((stream - tokens).std() / tokens.std()).item())
    assert spreads[1] == pytest.approx(spreads[0], rel=0.3)


def test_parameter_counts_are_the_closed_form():
    # GPT-2 small without embeddings: 12 blocks of 12 D^2 + 13 D, and the final norm's 2 D.
    with torch.device("meta"):
        model = Transformer(TransformerConfig(width=768, layers=12, heads=12, causal=True))
        gated = Transformer(TransformerConfig(768, 12, 12, 8 / 3, norm="rms", activation="swiglu", bias=False))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert sum(p.numel() for p in gated.parameters()) == 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768


def test_dropout_acts_in_training_only():
    model = build(dropout=0.5)
    tokens = torch.randn(1, 5, 32)
    with torch.no_grad():
        assert torch.equal(model(tokens), model(tokens))
        model.train()
        assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30}, "width 30 is not a multiple of heads 4"),
        ({"norm": "batch"}, "'layer' or 'rms'"),
        ({"activation": "relu"}, "'gelu' or 'swiglu'"),
    ],
)
def test_a_meaningless_config_is_refused(settings, message):
    with pytest.raises(TransformerError, match=message):
        TransformerConfig(**{"width": 32, "layers": 1, "heads": 4, **settings})


def test_a_mask_with_three_axes_is_refused_because_it_would_be_read_as_heads():
    with pytest.raises(TransformerError, match=r"\[4, 5, 5\]"):
        build()(torch.randn(4, 5, 32), mask=torch.ones(4, 5, 5, dtype=torch.bool))


def test_a_context_is_refused_without_cross_attention_and_required_with_it():
    with pytest.raises(TransformerError, match="context"):
        build()(torch.randn(1, 2, 32), context=torch.randn(1, 2, 32))
    with pytest.raises(TransformerError, match="context"):
        build(context_width=8)(torch.randn(1, 2, 32))
