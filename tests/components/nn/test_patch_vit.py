"""The vision transformer of patches and a class token, and the attention maps of its blocks."""

import pytest
import torch

from components.nn.attention_map import attention_map
from components.nn.rotary import rotary_angles, rotate
from components.nn.transformer import Transformer, TransformerConfig
from components.nn.vit import PatchError, PatchViT, patchify


@pytest.fixture
def encoder() -> PatchViT:
    torch.manual_seed(0)
    return PatchViT(image_side=12, patch_size=4, width=8, layers=3, heads=2, mlp_ratio=2.0).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_tokens_are_the_class_and_the_patches_row_by_row(encoder, images):
    tokens = encoder.embed(images)
    assert tokens.shape == (2, 10, 8)
    torch.testing.assert_close(tokens[0, 0], encoder.class_token[0] + encoder.positions[0])
    patch = patchify(images[:1] * 2 - 1, 4)[0, 5]  # second row, third column
    torch.testing.assert_close(patch.view(3, 4, 4), images[0, :, 4:8, 8:12] * 2 - 1)
    torch.testing.assert_close(tokens[0, 6], encoder.patch_embedding(patch) + encoder.positions[6])


def test_layers_can_be_stopped_and_continued_by_hand(encoder, images):
    tokens = encoder.hidden(images, 2)
    for block in encoder.blocks[2:]:
        tokens = block(tokens, None, False, None, None, None, None)
    torch.testing.assert_close(encoder.norm(tokens), encoder(images))
    torch.testing.assert_close(encoder.hidden(images, 0), encoder.embed(images))


def test_the_class_token_sees_every_patch(encoder, images):
    images.requires_grad_()
    encoder(images)[:, 0, 0].sum().backward()  # a sum over channels is constant behind a layer norm
    assert (patchify(images.grad, 4).abs().sum(-1) > 0).all()


def test_images_and_layers_that_do_not_fit_are_refused(encoder, images):
    with pytest.raises(PatchError, match="8 x 12 pixels"):
        encoder(images[..., :8])
    with pytest.raises(PatchError, match="expected 0 to 3"):
        encoder.hidden(images, 4)


def test_an_attention_map_reproduces_the_blocks_attention(encoder, images):
    tokens, block = encoder.embed(images), encoder.blocks[0]
    weights = attention_map(block, tokens)
    assert weights.shape == (2, 2, 10, 10)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 10))
    normed = block.attention_norm(tokens)
    keys, values = block.attention.project(normed)
    expected = block.attention(block.attention.queries(normed), keys, values, None, False)
    mixed = (weights @ values).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(block.attention.output(mixed), expected)


def test_rows_of_a_masked_and_rotated_map_are_those_of_the_full_one():
    torch.manual_seed(0)
    block = Transformer(TransformerConfig(8, 1, 2, causal=True)).blocks[0]
    tokens, angles = torch.randn(2, 6, 8), rotary_angles(torch.arange(6), 4)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    whole = attention_map(block, tokens, mask=causal, angles=angles)
    assert (whole.triu(1) == 0).all()
    some = attention_map(block, tokens, mask=causal, angles=angles, queries=torch.tensor([2, 5]))
    torch.testing.assert_close(some, whole[:, :, [2, 5]])
    normed = block.attention_norm(tokens)
    keys, values = block.attention.project(normed)
    queries = rotate(block.attention.queries(normed), angles)
    expected = block.attention(queries, rotate(keys, angles), values, causal, False)
    mixed = (whole @ values).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(block.attention.output(mixed), expected)
