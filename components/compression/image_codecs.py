"""JPEG and WebP as baselines for tiny byte budgets, in their favour.

A codec may scale the image down before coding and up again after decoding, may choose its quality and its chroma
subsampling, and is charged for its entropy-coded payload only: headers and tables are free. Both therefore reach
budgets of a few hundred bytes, which their files never do.

Letters: `H W` pixels. Images are uint8 arrays (H, W, 3).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from components.errors import TesseraError

Codec = Literal["jpeg", "webp"]

CHROMA = {"jpeg": ("4:4:4", "4:2:2", "4:2:0"), "webp": ("4:2:0",)}
DOWNSCALES = (1, 2, 4)
# Stop raising the quality when the payload is this far above the largest budget: it grows with the quality, though not
# strictly, so the first excess is not yet a reason to stop.
_GIVE_UP_AT = 1.25
_VP8_FRAME_HEADER = 10


class CodecError(TesseraError):
    """A file could not be measured, or no setting of a codec fits a budget."""


@dataclass(frozen=True)
class Coded:
    """One image under one setting of a codec.

    Attributes:
        payload: Entropy-coded bytes, without headers and tables.
        quality: Quality setting of the codec, 1 to 100.
        chroma: Chroma subsampling.
        downscale: Factor by which each side was divided before coding.
        psnr: Peak signal-to-noise ratio against the original, dB.
        decoded: Decoded image (H, W, 3), uint8, at the original size.
    """

    payload: int
    quality: int
    chroma: str
    downscale: int
    psnr: float
    decoded: np.ndarray


def jpeg_payload(file: bytes) -> int:
    """Return the bytes of the entropy-coded scan of a baseline JPEG file (all but its marker segments).

    Raises:
        CodecError: The file has no scan, or more than one (a progressive file).
    """
    position, end = 2, len(file)
    while position + 4 <= end and file[position] == 0xFF:
        marker = file[position + 1]
        position += 2 + int.from_bytes(file[position + 2 : position + 4], "big")
        if marker == 0xC2:
            raise CodecError("the JPEG file is progressive; write it with progressive=False to measure one scan.")
        if marker == 0xDA:
            if file[-2:] != b"\xff\xd9":
                raise CodecError("the JPEG file does not end with an EOI marker; it is cut off.")
            return end - 2 - position
    raise CodecError("the file is no baseline JPEG: it has no start-of-scan marker.")


def webp_payload(file: bytes) -> int:
    """Return the bytes of the VP8 data of a lossy WebP file without its 10-byte frame header.

    The probability tables are part of the arithmetic-coded data and cannot be taken out; they are a few bytes.

    Raises:
        CodecError: The file holds anything but one plain lossy image.
    """
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP" or file[12:16] != b"VP8 ":
        raise CodecError(f"the file starts with {file[:16]!r}; expected a plain lossy WebP file (RIFF, WEBP, 'VP8 ').")
    return int.from_bytes(file[16:20], "little") - _VP8_FRAME_HEADER


def encode(image: Image.Image, codec: Codec, quality: int, chroma: str) -> tuple[bytes, int]:
    """Return (file, payload bytes) of an image. JPEG uses the standard tables, WebP its slowest, best search."""
    buffer = io.BytesIO()
    if codec == "jpeg":
        image.save(buffer, "JPEG", quality=quality, subsampling=chroma, optimize=False, progressive=False)
        return buffer.getvalue(), jpeg_payload(buffer.getvalue())
    image.save(buffer, "WEBP", quality=quality, method=6, lossless=False)
    return buffer.getvalue(), webp_payload(buffer.getvalue())


def settings(image: np.ndarray, codec: Codec, largest: int, quality_step: int = 1) -> Iterator[Coded]:
    """Yield the image under every setting whose payload is at most `largest` bytes.

    Args:
        image: (H, W, 3), uint8.
        codec: "jpeg" or "webp".
        largest: Largest payload of interest, bytes.
        quality_step: Step between the quality settings tried, from 1 to 100.
    """
    original = Image.fromarray(image)
    height, width = image.shape[:2]
    reference = image.astype(np.float64)
    for downscale in DOWNSCALES:
        small = original
        if downscale > 1:
            size = (max(1, width // downscale), max(1, height // downscale))
            small = original.resize(size, Image.Resampling.LANCZOS)
        for chroma in CHROMA[codec]:
            for quality in range(1, 101, quality_step):
                file, payload = encode(small, codec, quality, chroma)
                if payload > _GIVE_UP_AT * largest:
                    break
                if payload > largest:
                    continue
                decoded = Image.open(io.BytesIO(file)).convert("RGB")
                if downscale > 1:
                    decoded = decoded.resize((width, height), Image.Resampling.BICUBIC)
                pixels = np.asarray(decoded)
                mse = np.square(pixels - reference).mean() / 255**2
                psnr = float(-10 * np.log10(mse)) if mse > 0 else float("inf")
                yield Coded(payload, quality, chroma, downscale, psnr, pixels)


def best_under(image: np.ndarray, codec: Codec, budgets: Iterable[int], quality_step: int = 1) -> dict[int, Coded]:
    """Return, for every budget, the setting of highest PSNR whose payload fits it.

    Args:
        image: (H, W, 3), uint8.
        codec: "jpeg" or "webp".
        budgets: Payload budgets in bytes.
        quality_step: Step between the quality settings tried, from 1 to 100.

    Raises:
        CodecError: No setting fits a budget.
    """
    budgets = sorted(budgets)
    best: dict[int, Coded] = {}
    for coded in settings(image, codec, budgets[-1], quality_step):
        for budget in budgets:
            if coded.payload <= budget and (budget not in best or coded.psnr > best[budget].psnr):
                best[budget] = coded
    for budget in budgets:
        if budget not in best:
            raise CodecError(
                f"{codec} cannot code this {image.shape[1]} x {image.shape[0]} image in {budget} bytes, even at "
                f"the lowest quality and one {DOWNSCALES[-1]}th of its size; raise the budget."
            )
    return best
