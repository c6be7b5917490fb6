"""Patches, and transformers between images and latent tokens."""

import pytest
import torch
import torch.nn.functional as F

from components.nn.vit import LatentDecoder, LatentEncoder, PatchError, patches_per_image, patchify, unpatchify


@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_patches_go_back_to_the_image(patch_size):
    images = torch.rand(2, 3, 8, 8)
    patches = patchify(images, patch_size)
    assert patches.shape == (2, patches_per_image(8, patch_size), 3 * patch_size**2)
    assert torch.equal(unpatchify(patches, patch_size), images)


def test_patches_are_those_of_unfold():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(patchify(images, 4), F.unfold(images, 4, stride=4).transpose(1, 2))


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(PatchError, match="divide"):
        patches_per_image(30, 8)


def test_latents_see_the_whole_image_and_each_other():
    torch.manual_seed(0)
    encoder = LatentEncoder(image_side=8, patch_size=4, tokens=3, code_dim=5, width=16, layers=2, heads=2)
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    encoded = encoder(images)
    assert encoded.shape == (1, 3, 5)
    encoded[0, 0].sum().backward()
    assert float(patchify(images.grad, 4).abs().sum(-1).min()) > 0
    assert float(encoder.latents.grad.abs().sum(-1).min()) > 0


def test_the_decoder_reads_the_order_of_codes_and_the_place_of_patches():
    torch.manual_seed(0)
    decoder = LatentDecoder(patches=4, tokens=6, code_dim=5, width=16, layers=2, heads=2)
    codes = torch.randn(1, 3, 5)
    features = decoder(codes).detach()
    assert features.shape == (1, 4, 16)
    assert not torch.allclose(decoder(codes.flip(1)), features)
    assert float(torch.cdist(features, features)[0].fill_diagonal_(1).min()) > 1e-3
