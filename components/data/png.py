"""PNG files with the same bytes on every machine.

An ordinary encoder's bytes depend on the release of its compression library, so a data set written with it would get
a new hash whenever Pillow is updated. Here the pixels are stored uncompressed (deflate "stored" blocks) and Parquet's
zstd compresses them afterwards, across images too.

Source: PNG specification (W3C, third edition); deflate stored blocks, RFC 1951 section 3.2.4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from components.errors import TesseraError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 0xFFFF
# Bytes before the first row of pixels: signature, header chunk, start of the data chunk, zlib's and the block's header.
_START = 8 + 25 + 8 + 2 + 5
# Bytes after the last row: checksums of the pixels and of the chunk, and the end chunk.
_AFTER = 4 + 4 + 12
_COLOUR_TYPES = {1: 0, 3: 2}


class PngError(TesseraError):
    """A file that was not written by this module."""


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


def decode(files: Sequence[bytes]) -> np.ndarray:
    """Decode images of one size that `encode` wrote, at once and many times faster than an ordinary decoder.

    Args:
        files: One or more files of up to 65,535 bytes of pixels.

    Returns:
        uint8 (B, H, W, C).

    Raises:
        PngError: A file was not written by `encode`, is too large, or sizes differ.
    """
    raw = np.frombuffer(b"".join(files), np.uint8)
    if not files or len(raw) != len(files) * len(files[0]) or len(files[0]) < _START:
        raise PngError(f"{len(files)} files of different sizes, none, or no images; expected PNG files of one size.")
    raw = raw.reshape(len(files), -1)
    width, height, _, colour = struct.unpack(">IIBB", files[0][16:26])
    channels = {kind: number for number, kind in _COLOUR_TYPES.items()}.get(colour, 0)
    size = height * (1 + width * channels)
    # Files of one size have the same bytes up to the first pixel, and those say that one stored block follows.
    known = channels and 0 < size <= _BLOCK and len(files[0]) == _START + size + _AFTER
    like = known and next(encode(np.zeros((1, height, width, channels), np.uint8)))
    if not known or (raw[:, :_START] != np.frombuffer(like[:_START], np.uint8)).any():
        raise PngError(
            "some files are no PNG files as written by components.data.png.encode, or differ in size; "
            "components.data.images.decode_images decodes any image."
        )
    rows = raw[:, _START : _START + size].reshape(len(files), height, 1 + width * channels)
    return rows[:, :, 1:].reshape(len(files), height, width, channels)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_END = _chunk(b"IEND", b"")
