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
