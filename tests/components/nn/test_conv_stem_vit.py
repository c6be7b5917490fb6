import pytest
import torch

from components.nn.conv_stem_vit import ConvStemViT, build
from components.nn.vit import PatchError


def network(**changes) -> ConvStemViT:
    torch.manual_seed(0)
    sizes = {"image_side": 32, "channels": [4, 6, 8], "width": 12, "layers": 3, "heads": 2, "classes": 5}
    return build(**{**sizes, **changes}).eval()


def test_an_image_has_one_token_for_each_cell_and_one_for_itself():
    model = network()
    images = torch.rand(2, 3, 32, 32)
    assert (model.rows, model.patches, model.layers, model.width) == (8, 64, 3, 12)
    assert model.embed(images).shape == (2, 65, 12)
    assert model(images).shape == (2, 5)


def test_the_open_stages_make_up_the_network():
    model = network()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = model.embed(images)
    for block in model.blocks:
        tokens = block(tokens, None, False, None, None, None, None)
    assert torch.equal(model.logits(model.norm(tokens)), model(images))
    assert torch.equal(model(images), model(images.float() / 255))


def test_a_token_sees_only_its_surroundings_before_the_first_block():
    model = network()
    images = torch.rand(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 16:20, 8:12] = 1 - changed[..., 16:20, 8:12]
    moved = (model.embed(images) - model.embed(changed)).abs().amax(-1)[0] > 1e-6
    cells = moved[1:].view(8, 8)
    assert not moved[0]
    assert cells[4, 2]
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[3:6, 1:4] = False
    assert not cells[outside].any()


def test_the_published_size_of_a_small_network_is_reached_by_the_same_blocks():
    # 12 D^2 + 13 D of a block, D = 96, six of them, beside stem, positions and classifier.
    model = network(channels=[24, 48, 96], width=96, layers=6, heads=4, classes=10)
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks == 6 * (12 * 96**2 + 13 * 96)


def test_images_of_another_side_are_refused():
    with pytest.raises(PatchError, match="this network reads 32 x 32"):
        network().embed(torch.rand(1, 3, 48, 48))
