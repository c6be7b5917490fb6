"""The grid tokenizer with every kind of quantizer."""

import pytest
import torch

from components.quantizers import additive, euclidean_vq, fsq, pq, rvq
from components.tokenizers.image.grid import GridTokenizer, GridTokenizerError

QUANTIZERS = {
    "vq": lambda: euclidean_vq.build(16, 4, code_ema_decay=0.9, restart_every=2),
    "rvq": lambda: rvq.build(8, 4, codebooks=3),
    "pq": lambda: pq.build(8, 4, codebooks=2),
    "additive": lambda: additive.build(8, 4, codebooks=2),
    "fsq": lambda: fsq.build((3, 3, 4, 5)),
}


def tokenizer(kind: str, **options) -> GridTokenizer:
    torch.manual_seed(0)
    return GridTokenizer(quantizer=QUANTIZERS[kind](), image_side=16, channels=(4, 8), **options).eval()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_tokens_decode_to_what_the_forward_pass_shows(kind):
    model = tokenizer(kind)
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    result = model(images)
    indices = model.encode(images)
    assert torch.equal(indices, result.codes.indices)
    assert indices.shape[:2] == (3, model.cells) == (3, 16)
    assert indices.numel() == 3 * 16 * len(model.codebook_sizes)
    torch.testing.assert_close(model.decode(indices), result.images)
    assert result.kept == len(model.codebook_sizes)


def test_tokens_stand_in_the_order_of_the_encoders_map():
    model = tokenizer("vq")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.latents(images)[1, 6], model.encoder(images)[1, :, 1, 2])


def test_fewer_codebooks_are_a_coarser_code_of_the_same_latents():
    model = tokenizer("rvq", drop="uniform")
    images = torch.rand(2, 3, 16, 16)
    model.start_from(images, torch.Generator().manual_seed(0))
    whole, coarse = model(images), model(images, 1)
    assert torch.equal(coarse.codes.indices, whole.codes.indices[..., :1])
    latents = model.latents(images)
    errors = [(model(images, used).codes.values - latents).square().sum() for used in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    drawn = {model.draw_step(torch.Generator().manual_seed(seed)) for seed in range(40)}
    assert drawn == {1, 2, 3}


def test_one_gradient_step_reaches_encoder_and_decoder_through_the_codes():
    model = tokenizer("vq").train()
    result = model(torch.rand(2, 3, 16, 16))
    (result.images.square().mean() + result.codes.loss).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert float(model.encoder.layers[0].weight.grad.abs().sum()) > 0
    codes = model.quantizer.codebook.weight.clone()
    model.after_step(1, torch.Generator().manual_seed(0))
    assert not torch.equal(model.quantizer.codebook.weight, codes)


def test_a_drop_law_needs_a_quantizer_whose_first_indices_mean_something():
    with pytest.raises(GridTokenizerError, match="ProductQuantizer has no coarser code"):
        tokenizer("pq", drop="uniform")
