"""From coded images to tensors.

Letters: `B` images, `H W` pixels, `P` tiles of an image. Images are uint8 (B, 3, H, W) unless a function says more.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from components.errors import TesseraError


class ImageDataError(TesseraError):
    """An image cannot be read, or has a size that does not fit what is asked."""


def decode_image(file: bytes) -> Image.Image:
    """Decode one JPEG, PNG or WebP file to RGB.

    Raises:
        ImageDataError: The bytes are no image that Pillow can read in full.
    """
    try:
        return Image.open(io.BytesIO(file)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ImageDataError(f"{len(file)} bytes starting with {file[:8]!r} are no readable image: {error}.") from error


def decode_images(files: Sequence[bytes]) -> Tensor:
    """Decode images of one common size into one tensor.

    Args:
        files: Complete JPEG, PNG or WebP files.

    Returns:
        uint8 (B, 3, H, W).

    Raises:
        ImageDataError: There is no image, one is unreadable, or sizes differ.
    """
    if not len(files):
        raise ImageDataError("there are no images to decode; check the split or the number of images asked for.")
    first = np.asarray(decode_image(files[0]))
    pixels = np.empty((len(files), *first.shape), dtype=np.uint8)
    for position, file in enumerate(files):
        image = np.asarray(decode_image(file))
        if image.shape != first.shape:
            raise ImageDataError(
                f"image {position} is {image.shape[1]} x {image.shape[0]}, image 0 is {first.shape[1]} x "
                f"{first.shape[0]}; bring all to one size first (centre_square)."
            )
        pixels[position] = image
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def encode_png(image: Tensor) -> bytes:
    """Return one uint8 image (3, H, W) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def centre_square(file: bytes, side: int) -> Tensor:
    """Decode an image, crop its largest central square and resize that to `side` pixels (area-preserving Lanczos).

    Returns:
        uint8 (3, side, side).
    """
    image = decode_image(file)
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    image = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def tile(images: Tensor, side: int) -> Tensor:
    """Cut images into square tiles, row by row.

    Args:
        images: (B, C, H, W) with H and W multiples of `side`.
        side: Side of a tile in pixels.

    Returns:
        (B * H/side * W/side, C, side, side); the tiles of one image are consecutive.

    Raises:
        ImageDataError: A side of the images is no multiple of the tile's.
    """
    count, channels, height, width = images.shape
    if height % side or width % side:
        raise ImageDataError(f"{width} x {height} images cannot be cut into {side}-pixel tiles; crop or resize them.")
    parts = images.reshape(count, channels, height // side, side, width // side, side)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def photograph_tiles(files: Sequence[bytes], side: int) -> tuple[Tensor, list[int]]:
    """Cut photographs, each at its own size, into tiles; incomplete ones at the right and bottom edge are left out.

    Args:
        files: Complete JPEG, PNG or WebP files.
        side: Side of a tile in pixels.

    Returns:
        uint8 (P, 3, side, side), and the number of the photograph that each tile was cut from.
    """
    tiles, origins = [], []
    for number, file in enumerate(files):
        image = decode_image(file)
        width, height = image.width // side * side, image.height // side * side
        pixels = torch.frombuffer(bytearray(image.crop((0, 0, width, height)).tobytes()), dtype=torch.uint8)
        tiles.append(tile(pixels.view(1, height, width, 3).permute(0, 3, 1, 2), side))
        origins += [number] * len(tiles[-1])
    return torch.cat(tiles).contiguous(), origins


def untile(tiles: Tensor, height: int, width: int) -> Tensor:
    """Undo `tile`: (B * P, C, side, side) back to (B, C, height, width)."""
    channels, side = tiles.shape[1], tiles.shape[-1]
    parts = tiles.reshape(-1, height // side, width // side, channels, side, side)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(images.shape[0], generator=generator, device=generator.device) < 0.5
    return torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)
