"""The two-stage target: codes of a grid tokenizer first, pixels through its decoder second."""

import torch
import torch.nn.functional as F

from components.quantizers.vq import VectorQuantizer
from components.tokenizers.image.maskgit_vqgan import MaskGITVQGAN
from components.tokenizers.image.one_d import OneDTokenizer
from components.tokenizers.image.proxy_codes import ProxyCodeHead


def grid_tokenizer(side=16) -> MaskGITVQGAN:
    torch.manual_seed(0)
    return MaskGITVQGAN(image_side=side, channels=4, multipliers=(1, 2, 2), blocks=1, codebook_size=8, code_dim=3)


def tokenizer() -> OneDTokenizer:
    head = ProxyCodeHead(grid_tokenizer(), width=16)
    quantizer = VectorQuantizer(32, 4)
    return OneDTokenizer(
        quantizer=quantizer, head=head, image_side=16, patch_size=8, tokens=5, width=16, layers=1, heads=2,
        drop="uniform",
    )  # fmt: skip


def test_the_grid_has_one_code_per_four_pixels_and_decodes_to_the_images_size():
    grid, images = grid_tokenizer(), torch.rand(2, 3, 16, 16)
    codes = grid.encode(images)
    assert codes.shape == (2, 16) == (2, grid.cells)
    assert grid.decode(codes).shape == images.shape


def test_the_default_grid_is_sixteen_by_sixteen_of_1024_codes():
    with torch.device("meta"):
        grid = MaskGITVQGAN()
    assert (grid.rows, grid.cells, tuple(grid.codebook.shape)) == (16, 256, (1024, 256))


def test_grid_codes_lie_row_by_row():
    grid = grid_tokenizer(side=64)
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 8:16, 40:48] = 1.0
    with torch.no_grad():
        before, after = grid.encoder(images).flatten(2), grid.encoder(changed).flatten(2)
    moved = (before - after).abs().sum(1)[0].view(16, 16)
    # Group normalisation spreads a change everywhere, but most of it stays near where it was made: rows 2-3.
    row, column = divmod(int(moved.flatten().argmax()), 16)
    assert 1 <= row <= 4
    assert 9 <= column <= 12


def test_the_decoder_may_have_more_cells_than_the_encoder_has_patches():
    model = tokenizer()
    assert (model.encoder.patches, model.head.patches) == (4, 16)
    assert model(torch.rand(2, 3, 16, 16), 2).images.shape == (2, 3, 16, 16)


def test_certain_predictions_decode_exactly_as_the_grid_does():
    grid = grid_tokenizer()
    head = ProxyCodeHead(grid, width=8)
    codes = torch.randint(8, (2, 16))
    head.to_logits = torch.nn.Identity()
    certain = F.one_hot(codes, 8).float() * 1e4
    torch.testing.assert_close(head(certain), grid.decode(codes))


def test_stage_one_is_the_cross_entropy_to_the_grids_codes_and_leaves_the_grid_alone():
    model, images = tokenizer(), torch.rand(3, 3, 16, 16)
    features = model.features(model.quantizer(model.encoder(images)).values, 4)
    loss = model.head.loss(features, images)
    probabilities = model.head.logits(features).log_softmax(-1)
    true = probabilities.gather(-1, model.head.grid.encode(images).unsqueeze(-1))
    torch.testing.assert_close(loss, -true.mean())
    loss.backward()
    assert not any(parameter.requires_grad for parameter in model.head.grid.parameters())
    assert model.encoder.latents.grad is not None


def test_a_blind_head_costs_the_logarithm_of_the_codebook():
    head = ProxyCodeHead(grid_tokenizer(), width=8)
    torch.nn.init.zeros_(head.to_logits[-1].weight)
    torch.nn.init.zeros_(head.to_logits[-1].bias)
    loss = head.loss(torch.randn(2, 16, 8), torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(loss, torch.tensor(8.0).log())


def test_stage_two_trains_the_pixel_decoder_and_codebook_but_not_the_grids_encoder():
    model, images = tokenizer(), torch.rand(3, 3, 16, 16)
    model.encoder.requires_grad_(False)
    model.quantizer.requires_grad_(False)
    model.head.train_decoder()
    (model(images, 3).images - images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.head.grid.decoder.parameters())
    assert model.head.grid.codebook.grad is not None
    assert model.decoder.mask_token.grad is not None
    assert all(parameter.grad is None for parameter in model.head.grid.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_stage_one_learns_to_name_the_codes_of_a_batch():
    model, images = tokenizer(), torch.rand(4, 3, 16, 16)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    first = None
    for _ in range(60):
        codes = model.quantizer(model.encoder(images))
        loss = model.head.loss(model.features(codes.values, 5), images)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        (loss + codes.loss).backward()
        optimiser.step()
    assert loss.item() < 0.6 * first
