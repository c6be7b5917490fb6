"""Decoding, cropping and tiling of images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.images import (
    ImageDataError,
    centre_square,
    decode_image,
    decode_images,
    encode_png,
    random_flip,
    tile,
    untile,
)


def file_of(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def random_pixels(height, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_png_files_come_back_pixel_by_pixel_in_order():
    pixels = [random_pixels(5, 7, seed) for seed in range(3)]
    images = decode_images([file_of(each) for each in pixels])
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    assert encode_png(images[1]) == file_of(pixels[1])


def test_jpeg_grey_and_transparent_files_become_rgb():
    grey = Image.new("L", (8, 8), 77)
    for image, form in ((grey, "JPEG"), (Image.new("RGBA", (8, 8), (1, 2, 3, 9)), "PNG")):
        buffer = io.BytesIO()
        image.save(buffer, form)
        assert decode_image(buffer.getvalue()).mode == "RGB"


def test_unreadable_truncated_missing_and_unequal_files_are_refused():
    good = file_of(random_pixels(40, 40))
    with pytest.raises(ImageDataError, match="no readable image"):
        decode_image(b"not an image")
    with pytest.raises(ImageDataError, match="no readable image"):
        decode_image(good[: len(good) // 2])
    with pytest.raises(ImageDataError, match="no images"):
        decode_images([])
    with pytest.raises(ImageDataError, match="image 1 is 9 x 8"):
        decode_images([file_of(random_pixels(8, 8)), file_of(random_pixels(8, 9))])


def test_the_centre_square_is_the_middle_of_the_longer_side():
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = (10, 200, 30)
    square = centre_square(file_of(pixels), 20)
    assert torch.equal(square, torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 20, 20))
    assert centre_square(file_of(pixels), 8).shape == (3, 8, 8)


def test_tiles_lie_row_by_row_and_go_back_together():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    tiles = tile(images, 2)
    assert tiles.shape == (12, 3, 2, 2)
    assert torch.equal(tiles[0], images[0, :, :2, :2])
    assert torch.equal(tiles[1], images[0, :, :2, 2:4])
    assert torch.equal(tiles[3], images[0, :, 2:, :2])
    assert torch.equal(tiles[6], images[1, :, :2, :2])
    assert torch.equal(untile(tiles, 4, 6), images)


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(ImageDataError, match="cannot be cut"):
        tile(torch.zeros(1, 3, 5, 6), 2)


def test_flipping_mirrors_about_half_of_the_images_and_nothing_else():
    images = torch.rand(1000, 3, 2, 5)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    same = (flipped == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 430 < int(mirrored.sum()) < 570
