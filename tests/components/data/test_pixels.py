"""Pixel scales: bytes and floats."""

import torch

from components.data.pixels import to_bytes, to_unit


def test_bytes_round_to_the_nearest_level_and_clip():
    images = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.7]).view(1, 1, 1, 6)
    assert to_bytes(images).flatten().tolist() == [0, 0, 0, 1, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_bytes(to_unit(levels)), levels)
