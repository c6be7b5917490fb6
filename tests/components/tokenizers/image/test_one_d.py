"""One-dimensional tokenizers: what must hold of tail drop, prefixes and sizes."""

import pytest
import torch
import torch.nn.functional as F

from components.bases import construct, specification
from components.quantizers.quantized import QuantizerError
from components.quantizers.rvq import ResidualQuantizer
from components.quantizers.vq import VectorQuantizer
from components.tokenizers.image.one_d import OneDTokenizer
from components.training.reconstruction_loss import pixel_error

TOKENS = 6


def tokenizer(drop="uniform", **options) -> OneDTokenizer:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(32, 4, code_ema_decay=0.9, restart_every=20)
    sizes = {"image_side": 16, "patch_size": 4, "tokens": TOKENS, "width": 16, "layers": 2, "heads": 2}
    return OneDTokenizer(quantizer=quantizer, drop=drop, **(sizes | options))


def pictures(count=5, side=16, seed=1) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kept", range(1, TOKENS + 1))
def test_training_with_k_kept_tokens_is_evaluating_the_prefix_of_length_k(kept):
    model, images = tokenizer(), pictures()
    trained = model.train()(images, kept).images
    model.eval()
    decoded = model.decode(model.encode(images)[:, :kept])
    torch.testing.assert_close(trained, decoded, rtol=0, atol=1e-5)


def test_dropping_is_not_zeroing():
    model, images = tokenizer().eval(), pictures()
    values = model(images).codes.values
    zeroed = values.clone()
    zeroed[:, 2:] = 0
    masked = model.head(model.features(zeroed, TOKENS))
    assert not torch.allclose(masked, model(images, 2).images, atol=1e-3)


@pytest.mark.parametrize("kept", [1, 3, TOKENS])
def test_no_gradient_reaches_a_code_behind_the_kept_ones(kept):
    model, images = tokenizer(), pictures()
    result = model.train()(images, kept)
    result.codes.values.retain_grad()
    loss = (result.images - images).square().mean() + result.codes.loss
    loss.backward()
    gradient = result.codes.values.grad
    assert torch.equal(gradient[:, kept:], torch.zeros_like(gradient[:, kept:]))
    assert float(gradient[:, :kept].abs().sum((0, 2)).min()) > 0


def test_the_encoder_never_sees_k_so_prefixes_are_bit_for_bit_nested():
    model, images = tokenizer(), pictures()
    whole = model.encode(images)
    for kept in range(1, TOKENS + 1):
        result = model(images, kept)
        assert torch.equal(result.codes.indices, whole)
        assert result.kept == kept


def test_without_drop_every_token_is_kept_and_no_random_number_is_used():
    model = tokenizer("none")
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    assert model.draw_step(generator) == TOKENS
    assert torch.equal(generator.get_state(), state)


def test_one_draw_of_k_holds_for_the_whole_batch():
    model = tokenizer()
    drawn = {model.draw_step(torch.Generator().manual_seed(seed)) for seed in range(100)}
    assert drawn == set(range(1, TOKENS + 1))
    assert model(pictures(), 3).images.shape == (5, 3, 16, 16)


def test_codes_that_come_from_bits_decode_to_the_same_image():
    model, images = tokenizer().eval(), pictures()
    torch.testing.assert_close(model.decode(model.encode(images)), model(images).images)


def test_bytes_and_unit_floats_are_the_same_image():
    model = tokenizer().eval()
    images = (pictures() * 255).to(torch.uint8)
    assert torch.equal(model.encode(images), model.encode(images.float() / 255))


def test_the_codebook_starts_from_the_encoders_own_vectors():
    model, images = tokenizer(), pictures(64)
    vectors = F.normalize(model.encoder(images), dim=-1).detach().flatten(0, 1)
    nearest = lambda: torch.cdist(vectors, model.quantizer.codebook).min(1).values.mean()  # noqa: E731
    before = nearest()
    model.start_from(images, torch.Generator().manual_seed(0))
    assert float(nearest()) < 0.5 * float(before)


def test_one_batch_can_be_learned_by_heart():
    model, images = tokenizer("none", width=32), F.interpolate(pictures(4, side=4), scale_factor=4)
    model.train().start_from(images, torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(300):
        result = model(images)
        error = pixel_error(result.images, images)
        optimiser.zero_grad()
        (error + result.codes.loss).backward()
        optimiser.step()
        model.after_step(step, torch.Generator().manual_seed(step))
    # What the mean picture leaves, 4 var, is where it would stay if all vectors had collapsed onto one code.
    assert error.item() < 0.05 * 4 * float(images.var(0, unbiased=False).mean())


SIZES = {"S": (512, 8, 8), "B": (768, 12, 12), "L": (1024, 24, 16)}


def test_full_models_grow_from_small_to_large_and_have_a_latent_head_of_width_12():
    counts = {}
    for name, (width, layers, heads) in SIZES.items():
        with torch.device("meta"):
            grid = specification("components.tokenizers.image.maskgit_vqgan")
            head = specification("components.tokenizers.image.proxy_codes", grid=grid, width=width)
            quantizer = specification("components.quantizers.vq", codebook_size=4096, code_dim=12)
            model = construct(
                specification(
                    "components.tokenizers.image.one_d", quantizer=quantizer, head=head, image_side=256,
                    patch_size=16, tokens=256, width=width, layers=layers, heads=heads, drop="uniform",
                )
            )  # fmt: skip
        assert all(parameter.is_meta for parameter in model.parameters())
        assert model.encoder.to_code.weight.shape == (12, width)
        assert model.quantizer.weight.shape == (4096, 12)
        assert model.head.patches == model.encoder.patches == 256
        assert model.head.to_logits[-1].out_features == 1024
        counts[name] = sum(part.numel() for side in (model.encoder, model.decoder) for part in side.parameters())
        blocks = 2 * layers * 12 * width**2
        assert 0.9 < blocks / counts[name] < 1.0
    assert counts["S"] < counts["B"] < counts["L"]


def test_a_quantizer_of_several_indices_gives_every_token_several_and_any_prefix_of_tokens_decodes():
    torch.manual_seed(0)
    tokenizer = OneDTokenizer(
        quantizer=ResidualQuantizer(8, 4, codebooks=3), image_side=16, patch_size=8, tokens=5, width=16, layers=1,
        heads=2, drop="uniform",
    ).eval()  # fmt: skip
    images = torch.rand(2, 3, 16, 16)
    assert tokenizer.codebook_sizes == (8, 8, 8)
    with pytest.raises(QuantizerError, match="Use codebook_sizes"):
        _ = tokenizer.codebook_size
    with torch.no_grad():
        indices = tokenizer.encode(images)
        assert indices.shape == (2, 5, 3)
        for kept in (1, 3, 5):
            result = tokenizer(images, kept)
            assert torch.equal(result.codes.indices, indices)
            torch.testing.assert_close(tokenizer.decode(indices[:, :kept]), result.images, atol=1e-5, rtol=1e-5)
