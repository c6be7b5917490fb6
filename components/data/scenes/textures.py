"""Sixteen textures of backgrounds and four fills of objects, as small integer tables."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from components.data.scenes.draws import Draws, Purpose
from components.data.scenes.sampling import TEXTURES, TILE

# Heights of a wave that rises and falls in straight lines, between -16 and 16, at sixteen places of a period.
_WAVE = np.array([-14, -10, -6, -2, 2, 6, 10, 14, 14, 10, 6, 2, -2, -6, -10, -14])
LEVELS = 16
# What a shaded pixel of an object keeps of its colour, in eighths.
SHADE = 4


@lru_cache(maxsize=1)
def tiles() -> np.ndarray:
    """Return the textures, int16 (16, 16, 16) between -16 and 16: [kind, y, x], repeating after 16 pixels.

    Stripes in four directions and two periods (8 and 16 pixels), checks upright and slanted in two periods, and four
    patterns of blotches. None is finer than four pixels, so that a tokenizer of 8-pixel patches sees it and its
    reconstruction is not a matter of noise.
    """
    y, x = np.indices((TILE, TILE))
    kinds = []
    for period in (8, 16):
        wave = _WAVE[np.arange(TILE) * (TILE // period) % TILE]
        for phase in (x, y, x + y, x - y):
            kinds.append(wave[phase % TILE])
        kinds.append(np.where((x // (period // 2) + y // (period // 2)) % 2, 12, -12))
        kinds.append((wave[(x + y) % TILE] + wave[(x - y) % TILE]) // 2)
    kinds += [_blotches(index) for index in range(TEXTURES - len(kinds))]
    return np.stack(kinds).astype(np.int16)


def _blotches(index: int) -> np.ndarray:
    """Return random heights on a grid of 4 pixels with straight slopes between, (16, 16)."""
    heights = Draws.of(index, 0, np.arange(1)).integers(2 * LEVELS + 1, Purpose.TEXTURE, 16).reshape(4, 4) - LEVELS
    at = np.arange(TILE)
    knot, part = at // 4, at % 4
    rows = (heights[knot] * (4 - part)[:, None] + heights[(knot + 1) % 4] * part[:, None]) // 4
    return (rows[:, knot] * (4 - part) + rows[:, (knot + 1) % 4] * part) // 4


def shaded(fill: str, width: int) -> np.ndarray:
    """Return which pixels of an object's stamp are shaded by a fill, bool (W, W)."""
    y, x = np.indices((width, width))
    if fill == "striped":
        return y // 2 % 2 == 1
    if fill == "dotted":
        return (y % 3 == 1) & (x % 3 == 1)
    return np.full((width, width), fill == "dark")
