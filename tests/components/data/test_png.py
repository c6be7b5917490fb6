"""The deterministic PNG encoder, read back by Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from components.data import png


@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (2, 5, 7, 1), (1, 200, 150, 3), (1, 1, 1, 1)])
def test_pixels_come_back_unchanged(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    files = list(png.encode(images))
    assert len(files) == shape[0]
    for image, file in zip(images, files, strict=True):
        decoded = Image.open(io.BytesIO(file))
        # Verifies the checksums of every chunk as well.
        Image.open(io.BytesIO(file)).verify()
        assert decoded.mode == {1: "L", 3: "RGB"}[shape[-1]]
        np.testing.assert_array_equal(np.asarray(decoded).reshape(image.shape), image)


@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (2, 5, 7, 1), (4, 64, 64, 3), (1, 1, 1, 1)])
def test_own_files_are_decoded_at_once(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(png.decode(list(png.encode(images))), images)


def other_files():
    grey, wide = (list(png.encode(np.zeros(shape, np.uint8))) for shape in ((1, 4, 4, 1), (1, 4, 5, 1)))
    same_length = next(png.encode(np.zeros((1, 5, 4, 1), np.uint8)))
    packed = io.BytesIO()
    Image.new("RGB", (8, 8)).save(packed, "PNG")
    yield []
    yield [b""]
    yield [b"GIF89a"]
    yield grey + wide
    yield [grey[0][:-1]]
    yield [packed.getvalue()]
    yield [grey[0], bytes(len(grey[0]))]
    yield [same_length[:16] + grey[0][16:24] + same_length[24:]]
    yield list(png.encode(np.zeros((1, 200, 150, 3), np.uint8)))


@pytest.mark.parametrize("files", list(other_files()), ids=range(9))
def test_other_files_are_not_taken_for_own_ones(files):
    with pytest.raises(png.PngError):
        png.decode(files)
