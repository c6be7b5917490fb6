"""From scenes to pixels: pictures, masks of objects, masks of their parts, depth and boxes.

Letters: `B` scenes, `K` objects of a scene (at most), `H W` pixels (equal), `N` stamps, `P` pixels of a stamp.

All arithmetic is on integers: a pixel is mixed from what lies below and the object's colour by the covered samples.
Red, green and blue share a word of 32 bits, and the two masks one of 16, so that a stamp needs one gather and one
scatter each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from components.data.scenes import glyphs, textures
from components.data.scenes.sampling import TILE, Scenes, sign_size
from components.data.scenes.stamps import FULL, stamps
from components.data.scenes.world import GROUNDS, MARK_SHARE, Q, ScenesError, World

# Value of a sign's pixels in masks of objects.
SIGN = 255
# Values in masks of parts; the ink of glyph i of a sign has INK + i.
GROUND, BODY, MARK, PLATE, INK = range(5)
_WHITE, _BLACK = (250, 250, 250), (20, 20, 20)
_BRIGHT = 160
# Stamps may end one pixel beyond the border.
_PAD = 2
# Scenes whose pixels stay in the processor's cache.
_BLOCK = 128
_RED_BLUE = np.uint32(0xFF00FF)


@dataclass(frozen=True)
class Rendered:
    """Pixels of a batch of scenes.

    Attributes:
        pictures: uint8 (B, H, W, 3).
        masks: uint8 (B, H, W): 0 where the background is, 1 + index of the object that covers at least half of the
            pixel, SIGN where a sign is.
        parts: uint8 (B, H, W): GROUND, BODY, MARK, PLATE or INK + position of the glyph.
        depths: uint8 (B, H, W), 255 is farthest. Scenes are seen as upright figures on a floor that rises from the
            viewer (bottom row, 0) to the horizon (top row, 255): a pixel of the background is as far as its row, an
            object or a sign as the row of its foot.
        boxes: Smallest box around each object's mask, int16 (B, K, 4): left, top, right, bottom (half-open).
        sign_boxes: Box of each scene's sign, int16 (B, 4); zeros where there is none.
    """

    pictures: np.ndarray
    masks: np.ndarray
    parts: np.ndarray
    depths: np.ndarray
    boxes: np.ndarray
    sign_boxes: np.ndarray


def render(scenes: Scenes) -> Rendered:
    """Draw the pixels; where objects overlap, later ones are in front."""
    count, side = len(scenes), scenes.world.side
    pixels = (count, side, side)
    masks, parts, depths = (np.empty(pixels, np.uint8) for _ in range(3))
    boxes = np.zeros((count, scenes.shape.shape[1], 4), np.int16)
    rendered = Rendered(np.empty((*pixels, 3), np.uint8), masks, parts, depths, boxes, _sign_boxes(scenes))
    for first in range(0, count, _BLOCK):
        _render_block(scenes, np.arange(first, min(first + _BLOCK, count)), rendered)
    return rendered


def glyph_boxes(sign_box: np.ndarray) -> np.ndarray:
    """Return the boxes of a sign's glyphs, int16 (L, 4), from the sign's box (4,)."""
    left, top, right, bottom = (int(value) for value in sign_box)
    margin = (bottom - top - glyphs.HEIGHT) // 2
    starts = range(left + margin, right - margin, glyphs.WIDTH + 1)
    return np.array([[x, top + margin, x + glyphs.WIDTH, bottom - margin] for x in starts], np.int16).reshape(-1, 4)


class _Canvas:
    """Pixels of some scenes, with a margin to the right and below; stamps are put on it in place."""

    def __init__(self, colours: np.ndarray) -> None:
        # uint32 (B, H, W) as from `_packed`; labels hold the mask in the low byte and the part in the high one.
        self.colours, self.labels = colours, np.zeros(colours.shape, np.uint16)
        self._side = colours.shape[-1]

    def stamp(self, rows, corner, cover, colour, mask: int, part: int) -> None:
        """Put a stamp into each of some scenes.

        Args:
            rows: Scenes, (N,), each once.
            corner: x and y of the stamps' corners in pixels, (N, 2).
            cover: Covered samples of each pixel, uint8 (N, height, width).
            colour: uint32 (N, 1) or (N, P).
            mask: Value of covered pixels in the masks of objects.
            part: Value of covered pixels in the masks of parts.
        """
        height, width = cover.shape[1:]
        if corner.min(initial=0) < 0 or (corner + np.array([width, height])).max(initial=0) > self._side:
            raise ScenesError("an object or a sign stands across the border of its scene; move it inside.")
        offset = (np.arange(height)[:, None] * self._side + np.arange(width)).ravel()
        at = ((rows * self._side + corner[:, 1]) * self._side + corner[:, 0])[:, None] + offset
        cover = cover.reshape(len(rows), height * width)
        below = self.colours.take(at)
        self.colours.put(at, _mix(below, colour, cover.astype(np.uint32)))
        covered = at[2 * cover >= FULL]
        self.labels.put(covered, np.uint16(part << 8 | mask))


def _mix(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (below * (FULL - weight) + above * weight) / FULL, rounded, of each byte of words of 32 bits."""
    rest = np.uint32(FULL) - weight
    half, shift = np.uint32(FULL // 2 * 0x10001), np.uint32(FULL.bit_length() - 1)
    even = (below & _RED_BLUE) * rest + (above & _RED_BLUE) * weight + half
    odd = (below >> np.uint32(8) & _RED_BLUE) * rest + (above >> np.uint32(8) & _RED_BLUE) * weight + half
    return (even >> shift & _RED_BLUE) | ((odd >> shift & _RED_BLUE) << np.uint32(8))


def _packed(colours: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) as words, uint32 (...)."""
    red, green, blue = np.moveaxis(np.asarray(colours).astype(np.uint32), -1, 0)
    return red | green << np.uint32(8) | blue << np.uint32(16)


def _render_block(scenes: Scenes, block: np.ndarray, rendered: Rendered) -> None:
    world, side = scenes.world, scenes.world.side
    canvas = _Canvas(_grounds(scenes, block, side + _PAD))
    for index in range(scenes.shape.shape[1]):
        for size in range(len(world.sizes)):
            rows = np.flatnonzero((scenes.count[block] > index) & (scenes.size[block, index] == size))
            if len(rows):
                radius = int(world.radii[size])
                rendered.boxes[block[rows], index] = _draw_bodies(scenes, canvas, rows, block[rows], index, radius)
                if world.marks:
                    _draw_marks(scenes, canvas, rows, block[rows], index, radius)
    if world.sign:
        rows = np.flatnonzero(scenes.has_sign[block])
        _draw_signs(scenes, canvas, rows, block[rows])
    own = slice(block[0], block[-1] + 1)
    colours = canvas.colours[:, :side, :side]
    rendered.pictures[own] = colours.astype("<u4").view(np.uint8).reshape(*colours.shape, 4)[..., :3]
    rendered.masks[own] = canvas.labels[:, :side, :side]
    rendered.parts[own] = canvas.labels[:, :side, :side] >> 8
    rendered.depths[own] = _depths(rendered.masks[own], rendered.boxes[own], rendered.sign_boxes[own])


def _draw_bodies(scenes: Scenes, canvas: _Canvas, rows, batch, index: int, radius: int) -> np.ndarray:
    """Draw object `index` of the scenes `batch`, which are `rows` of the canvas; return its boxes, (N, 4)."""
    world = scenes.world
    atlas = stamps(world.shapes, radius)
    corner, phase = _corner(scenes.centre[batch, index], radius)
    at = (scenes.shape[batch, index], phase[:, 1], phase[:, 0])
    colour = scenes.colour[batch, index]
    if world.fills == ("plain",):
        words = _packed(world.palette)[colour, None]
    else:
        words = _filled(world, atlas.width)[scenes.fill[batch, index], colour]
    canvas.stamp(rows, corner, atlas.cover[at], words, index + 1, BODY)
    return atlas.box[at] + np.tile(corner, 2)


def _draw_marks(scenes: Scenes, canvas: _Canvas, rows, batch, index: int, radius: int) -> None:
    small = radius * MARK_SHARE[0] // MARK_SHARE[1]
    corner, phase = _corner(scenes.centre[batch, index], small)
    cover = stamps(scenes.world.shapes, small).cover[scenes.mark_shape[batch, index], phase[:, 1], phase[:, 0]]
    words = _packed(scenes.world.palette)[scenes.mark_colour[batch, index], None]
    canvas.stamp(rows, corner, cover, words, index + 1, MARK)


def _draw_signs(scenes: Scenes, canvas: _Canvas, rows, batch) -> None:
    world, corner = scenes.world, scenes.sign_at[batch]
    width, height = sign_size(world)
    margin = (height - glyphs.HEIGHT) // 2
    ink = np.full((len(rows), 1), _packed(_BLACK))
    if margin:
        plate = np.full((len(rows), height, width), FULL, np.uint8)
        canvas.stamp(rows, corner, plate, np.full_like(ink, _packed(_WHITE)), SIGN, PLATE)
    else:
        dark = world.ground_palette[scenes.ground[batch]].max(1) < _BRIGHT
        ink[dark] = _packed(_WHITE)
    for position in range(world.sign.length):
        cover = glyphs.INK[scenes.glyphs[batch, position]].astype(np.uint8) * np.uint8(FULL)
        shift = np.array([margin + position * (glyphs.WIDTH + 1), margin])
        canvas.stamp(rows, corner + shift, cover, ink, SIGN, INK + position)


def _corner(centre: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    start = centre - radius
    return start // Q, start % Q


def _filled(world: World, width: int) -> np.ndarray:
    """Return the colour of each pixel of a stamp by fill and colour, uint32 (fills, colours, P)."""
    shaded = np.stack([textures.shaded(fill, width).ravel() for fill in world.fills])
    dark = world.palette * textures.SHADE // 8
    return _packed(np.where(shaded[:, None, :, None], dark[:, None], world.palette[:, None]))


def _grounds(scenes: Scenes, block: np.ndarray, side: int) -> np.ndarray:
    """Return the backgrounds, uint32 (B, side, side)."""
    world, ground = scenes.world, scenes.ground[block]
    if not world.texture:
        return _packed(world.ground_palette)[ground, None, None].repeat(side, 1).repeat(side, 2)
    y = (np.arange(side) + scenes.phase[block, 1, None]) % TILE
    x = (np.arange(side) + scenes.phase[block, 0, None]) % TILE
    tile = ground * textures.TEXTURES + scenes.texture[block]
    return _tiles(world.grounds, world.texture).take(
        (tile[:, None] * TILE + y)[:, :, None] * TILE + x[:, None, :]
    )  # fmt: skip


@lru_cache(maxsize=16)
def _tiles(grounds: tuple[str, ...], texture: int) -> np.ndarray:
    """Return the textures in the colours of the grounds, uint32 (grounds, 16, 16, 16)."""
    heights = texture * textures.tiles() // textures.LEVELS
    colours = np.array([GROUNDS[name] for name in grounds], np.int16)
    return _packed(np.clip(colours[:, None, None, None] + heights[..., None], 0, 255))


def _sign_boxes(scenes: Scenes) -> np.ndarray:
    if not scenes.world.sign:
        return np.zeros((len(scenes), 4), np.int16)
    far = scenes.sign_at + np.array(sign_size(scenes.world))
    return np.where(scenes.has_sign[:, None], np.hstack([scenes.sign_at, far]), 0).astype(np.int16)


def _depths(masks: np.ndarray, boxes: np.ndarray, sign_boxes: np.ndarray) -> np.ndarray:
    count, side, _ = masks.shape
    ramp = (255 - np.arange(side) * 255 // (side - 1)).astype(np.uint8)
    by_mask = np.zeros((count, 256), np.uint8)
    by_mask[:, 1 : boxes.shape[1] + 1] = ramp[boxes[..., 3] - 1]
    by_mask[:, SIGN] = ramp[sign_boxes[:, 3] - 1]
    found = by_mask.take(masks + np.arange(count)[:, None, None] * 256)
    return np.where(masks == 0, ramp[:, None], found)
