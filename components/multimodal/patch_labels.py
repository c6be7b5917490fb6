"""What each patch of a scene shows: shape, colour and size of an object, a glyph and its place, an object's centre.

Letters: `B` scenes, `H W` pixels, `P` patches of a scene (row by row), `K` objects of a scene (at most).
"""

from __future__ import annotations

import numpy as np

from components.data.scenes import glyphs
from components.data.scenes.world import World

ATTRIBUTES = ("shape", "colour", "size", "glyph", "ordinal", "centre")
"""What is said of a patch, in this order: `ordinal` is where its glyph stands on the sign, `centre` whether an object
has its centre there, so that objects which cover many patches can be counted."""
_LEAST_SHARE = 4  # an object or a glyph must cover a quarter of a patch
_BLOCK = 2048


def label_sizes(world: World) -> tuple[int, ...]:
    """Return the number of classes of each of ATTRIBUTES; class 0 stands for none."""
    sign = world.sign
    known = (len(world.shapes), len(world.colours), len(world.sizes))
    return tuple(1 + count for count in (*known, sign.alphabet if sign else 0, sign.length if sign else 0, 1))


def patch_labels(
    masks: np.ndarray,
    objects: np.ndarray,
    centres: np.ndarray,
    signs: np.ndarray,
    sign_boxes: np.ndarray,
    patch_size: int,
) -> np.ndarray:
    """Return the class of every attribute for every patch.

    A patch belongs to the object that covers most of it, or to the glyph whose box does, if that is a quarter or more.

    Args:
        masks: uint8 (B, H, W) as in `scenes.rendering.Rendered`.
        objects: Codes of shape, colour and size of each object, int64 (B, K, 3).
        centres: Pixel of each object's centre, x and y, int64 (B, K, 2); -1 where there is no such object.
        signs: Codes of the glyphs of each sign, int64 (B, L); -1 where there is none.
        sign_boxes: Left, top, right, bottom of each sign, int64 (B, 4).
        patch_size: Side of a patch in pixels.

    Returns:
        uint8 (B, P, 6), in the order of ATTRIBUTES.
    """
    rows = masks.shape[1] // patch_size
    parts = []
    for first in range(0, len(masks), _BLOCK):
        own = slice(first, first + _BLOCK)
        kinds = [
            _of_objects(masks[own], objects[own], patch_size),
            _of_glyphs(signs[own], sign_boxes[own], patch_size, rows),
            _of_centres(centres[own], patch_size, rows),
        ]
        parts.append(np.concatenate(kinds, axis=2))
    return np.concatenate(parts)


def _of_objects(masks: np.ndarray, objects: np.ndarray, patch_size: int) -> np.ndarray:
    count, side, _ = masks.shape
    rows = side // patch_size
    tiles = masks.reshape(count, rows, patch_size, rows, patch_size).swapaxes(2, 3).reshape(count, rows * rows, -1)
    covered = np.stack([(tiles == 1 + index).sum(2) for index in range(objects.shape[1])], 2)
    owner = covered.argmax(2)
    shown = _LEAST_SHARE * covered.max(2) >= patch_size**2
    labels = 1 + np.take_along_axis(objects, owner[..., None], 1)
    return np.where(shown[..., None], labels, 0).astype(np.uint8)


def _of_glyphs(signs: np.ndarray, boxes: np.ndarray, patch_size: int, rows: int) -> np.ndarray:
    margin = (boxes[:, 3] - boxes[:, 1] - glyphs.HEIGHT) // 2
    left = (boxes[:, 0] + margin)[:, None] + np.arange(signs.shape[1]) * (glyphs.WIDTH + 1)
    top = (boxes[:, 1] + margin)[:, None]
    across = _overlap(left, glyphs.WIDTH, patch_size, rows)
    down = _overlap(top, glyphs.HEIGHT, patch_size, rows)
    covered = (down[:, :, None] * across[:, None]).reshape(len(signs), rows * rows, signs.shape[1])
    covered = covered * (signs >= 0)[:, None]
    place = covered.argmax(2)
    shown = _LEAST_SHARE * covered.max(2, initial=0) >= patch_size**2
    labels = 1 + np.stack([np.take_along_axis(signs, place, 1), place], 2)
    return np.where(shown[..., None], labels, 0).astype(np.uint8)


def _of_centres(centres: np.ndarray, patch_size: int, rows: int) -> np.ndarray:
    labels = np.zeros((len(centres), rows * rows, 1), np.uint8)
    scene, index = np.nonzero(centres[..., 0] >= 0)
    column, row = (centres[scene, index] // patch_size).T
    labels[scene, row * rows + column] = 1
    return labels


def _overlap(start: np.ndarray, length: int, patch_size: int, rows: int) -> np.ndarray:
    """Return how many of the pixels start .. start + length - 1, (B, L), lie in each row of patches, (B, rows, L)."""
    first = np.arange(rows)[:, None] * patch_size
    ends = np.minimum(start[:, None] + length, first + patch_size)
    return np.maximum(ends - np.maximum(start[:, None], first), 0)
