"""The networks of block diffusion: what they share, and what a wrong size says (masks and caches: test_block.py)."""

import pytest
import torch
import torch.nn.functional as F

from components.diffusion.block import block_masks
from components.nn.encoder_decoder_block import BlockNetworkError, EncoderDecoderBlock, TiedBlock, build
from components.nn.rotary import rotary_angles, rotate

SIZES = {"words": 11, "special": 2, "context": 13, "width": 16, "heads": 2, "feed_forward": 24}


def numbers(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_decoder_layer_attends_once_to_encoder_states_and_its_own_block():
    """One decoder layer written out: keys of both kinds joined, one softmax, positions shared by twins."""
    torch.manual_seed(0)
    model = build(**SIZES, encoder_layers=1, decoder_layers=1).double().eval()
    clean, noisy = torch.randint(11, (2, 9)), torch.randint(12, (2, 8))
    masks = block_masks(1, 8, 4)
    places = rotary_angles(torch.arange(13), 8).double()
    model.angles = places
    states = model.encoder(model.embedding(clean), mask=masks.reading, angles=places[:, :9])
    block, x = model.decoder.blocks[0], model.embedding(noisy)

    def heads(tokens):
        return tokens.unflatten(-1, (2, 8)).transpose(1, 2)

    normed = torch.cat([block.attention_norm(states), block.attention_norm(x)], 1)
    keys, values = block.attention.key_value(normed).chunk(2, -1)
    keys = rotate(heads(keys), torch.cat([places[:, :9], places[:, 1:9]], 1))
    queries = rotate(heads(block.attention.query(block.attention_norm(x))), places[:, 1:9])
    scores = (queries @ keys.transpose(-1, -2) / 8**0.5).masked_fill(~masks.denoising, -torch.inf)
    x = x + block.attention.output((scores.softmax(-1) @ heads(values)).transpose(1, 2).flatten(-2))
    x = x + block.mlp(block.mlp_norm(x))
    expected = model.logits(model.decoder.norm(x))
    torch.testing.assert_close(model(clean, noisy, masks), expected)


def test_tied_layers_have_no_weights_of_their_own_and_all_layers_make_a_plain_stack():
    whole, top = build(**SIZES, layers=4), build(**SIZES, layers=4, decoder_layers=2)
    assert numbers(whole) == numbers(top)
    assert whole.decoder_only
    assert not top.decoder_only
    assert isinstance(top, TiedBlock)
    split = build(**SIZES, encoder_layers=2, decoder_layers=2)
    assert isinstance(split, EncoderDecoderBlock)
    assert numbers(split) == numbers(whole) + 2 * SIZES["width"]  # one more final norm


def test_the_mask_is_read_and_never_predicted():
    model = build(**SIZES, layers=1)
    assert model.logits(torch.zeros(2, 3, 16)).shape == (2, 3, 11)
    assert model.embedding.num_embeddings == 13
    tied = build(**SIZES, layers=1, tied_output=True)
    hidden = torch.randn(3, 16)
    torch.testing.assert_close(tied.logits(hidden), F.linear(hidden, tied.embedding.weight[:11]))


def test_attention_of_an_untied_decoder_sees_the_encoders_last_state_only():
    """Gradients of a decoder's logits reach the encoder through its final norm."""
    model = build(**SIZES, encoder_layers=2, decoder_layers=2)
    masks = block_masks(1, 12, 4)
    model(torch.randint(11, (1, 13)), torch.full((1, 12), 11), masks).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 18, "heads": 2}, "even number"),
        ({"layers": 2, "decoder_layers": 3}, "expected 1 to 2"),
    ],
)
def test_sizes_without_meaning_are_refused(changes, says):
    with pytest.raises(BlockNetworkError, match=says):
        build(**{**SIZES, "layers": 2, **changes})


def test_more_tokens_than_positions_are_refused():
    model = build(**SIZES, layers=1)
    with pytest.raises(BlockNetworkError, match="14 tokens"):
        model.parallel(torch.zeros(1, 14, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "stated", "within"),
    [
        # CNN/DailyMail: 20 + 8 layers of width 256; hidden channels are not stated, 1536 is the value that fits.
        ({"width": 256, "heads": 8, "feed_forward": 1536, "encoder_layers": 20, "decoder_layers": 8}, 80e6, 0.05),
        # GSM8K: Qwen3-1.7B, whose keys and values are shared by two heads each; here every head has its own.
        ({"width": 2048, "heads": 16, "feed_forward": 6144, "layers": 28, "decoder_layers": 14}, 1.7e9, 0.09),
    ],
)
def test_full_sizes_build_on_the_meta_device_near_what_the_paper_states(arguments, stated, within):
    with torch.device("meta"):
        model = build(
            words=151_936, special=2, context=1024, tied_output=True, norm="rms", activation="swiglu", bias=False,
            **arguments,
        )  # fmt: skip
    assert numbers(model) == pytest.approx(stated, rel=within)


def test_the_translation_size_of_the_paper_has_an_output_of_its_own():
    """WMT14: 28 + 4 layers of width 512, FFN 1536; two matrices of 151,936 words make 265 of the stated 250 M."""
    with torch.device("meta"):
        model = build(
            words=151_936, special=2, context=512, width=512, heads=8, feed_forward=1536, encoder_layers=28,
            decoder_layers=4, norm="rms", activation="swiglu", bias=False,
        )  # fmt: skip
    assert numbers(model) == pytest.approx(250e6, rel=0.07)
