"""The convolutional encoder and decoder: shapes, locality of what they see, and input that does not fit."""

import pytest
import torch

from components.nn.conv_autoencoder import (
    ConvAutoencoderError,
    ConvDecoder,
    ConvEncoder,
    ResidualBlock,
    cell_means,
    cells_per_side,
    to_maps,
    to_vectors,
)

pytestmark = pytest.mark.usefixtures("_seeded")


@pytest.fixture
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("channels", "factor"), [((4,), 2), ((4, 8), 4), ((8, 16, 24), 8)])
def test_every_level_halves_and_doubles_the_resolution(channels, factor):
    images = torch.rand(2, 3, 16, 24)
    latents = ConvEncoder(channels, 5)(images)
    assert latents.shape == (2, 5, 16 // factor, 24 // factor)
    assert ConvDecoder(channels, 5)(latents).shape == images.shape


def test_images_of_a_batch_do_not_see_one_another():
    encoder = ConvEncoder((4, 8), 3)
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]))


def test_a_residual_block_begins_as_a_small_change_of_its_input():
    block = ResidualBlock(8, 8)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x) - x, block.body(x) + x - x)
    with torch.no_grad():
        block.body[-1].weight.zero_()
    assert torch.equal(block(x), x)


def test_the_decoder_can_place_any_colour_inside_a_cell():
    """A sub-pixel convolution is free in each of a cell's pixels: one cell learns a checkerboard."""
    decoder = ConvDecoder((16,), 4)
    latents = torch.randn(1, 4, 2, 2)
    checkers = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(2, 2).expand(1, 3, 4, 4)
    optimiser = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(100):
        error = (decoder(latents) - checkers).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    assert error < 1e-3


def test_vectors_are_read_row_by_row_and_back():
    maps = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    vectors = to_vectors(maps)
    assert torch.equal(vectors[1, 6], maps[1, :, 1, 2])
    assert torch.equal(to_maps(vectors, 4), maps)


def test_cell_means_are_the_mean_colour_of_each_cell():
    images = torch.rand(2, 3, 8, 8)
    means = cell_means(images, 4)
    torch.testing.assert_close(means[0, :, 5, 2], images[0, :, 4:8, 0:4].mean((1, 2)))
    torch.testing.assert_close(cell_means(means, 4), means)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConvAutoencoderError, match="multiple of 8"):
        cells_per_side(20, (4, 8, 8))
    with pytest.raises(ConvAutoencoderError, match="at least one level"):
        ConvEncoder((), 4)
    with pytest.raises(ConvAutoencoderError, match="positive sizes"):
        ConvDecoder((4, 0), 4)
