"""PNG files with the same bytes on every machine.

An ordinary encoder's bytes depend on the release of its compression library, so a data set written with it would get
a new hash whenever Pillow is updated. Here the pixels are stored uncompressed (deflate "stored" blocks) and Parquet's
zstd compresses them afterwards, across images too.

Source: PNG specification (W3C, third edition); deflate stored blocks, RFC 1951 section 3.2.4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 0xFFFF
_COLOUR_TYPES = {1: 0, 3: 2}


def encode(images: np.ndarray) -> Iterator[bytes]:
    """Encode images of one size, losslessly.

    Args:
        images: uint8 (B, H, W, C) with C = 3 (RGB) or 1 (grey).

    Yields:
        One PNG file per image.
    """
    count, height, width, channels = images.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    start = _SIGNATURE + _chunk(b"IHDR", header)
    # Each row of pixels is preceded by its filter, 0 for none.
    rows = np.zeros((count, height, 1 + width * channels), np.uint8)
    rows[:, :, 1:] = images.reshape(count, height, width * channels)
    size = height * (1 + width * channels)
    for image in rows:
        pixels = image.tobytes()
        blocks = [b"\x78\x01"]
        for offset in range(0, size, _BLOCK):
            length = min(_BLOCK, size - offset)
            last = offset + length == size
            blocks.append(struct.pack("<BHH", last, length, length ^ 0xFFFF) + pixels[offset : offset + length])
        blocks.append(struct.pack(">I", zlib.adler32(pixels)))
        yield start + _chunk(b"IDAT", b"".join(blocks)) + _END


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_END = _chunk(b"IEND", b"")
