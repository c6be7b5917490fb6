"""How much of each pixel a shape covers, for every size and every phase of its centre: computed once, in integers.

A pixel has 8 x 8 samples. With the sixteenth of a pixel as unit, samples lie at odd multiples, centres and radii at
multiples of four; whether a sample is inside a shape is a comparison of integers, so that no rounding is involved.

Letters: `S` shapes, `W` side of a stamp in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from components.data.scenes.world import Q

SAMPLES = 8
FULL = SAMPLES * SAMPLES
_UNIT = 2 * SAMPLES
# The five tips of a star as unit vectors, and the distance of its lines from the centre, cos 72 degrees, in 1/65536.
_TIPS = ((0, -65536), (62328, -20252), (38521, 53020), (-38521, 53020), (-62328, -20252))
_STAR_LINE = 20252


@dataclass(frozen=True)
class Stamps:
    """Stamps of one size.

    Attributes:
        cover: Covered samples of each pixel out of FULL, uint8 (S, Q, Q, W, W), by shape and phase in y and x.
        box: Smallest box around the pixels that are covered by half or more, int64 (S, Q, Q, 4): left, top, right,
            bottom (half-open), from the stamp's corner.
    """

    cover: np.ndarray
    box: np.ndarray

    @property
    def width(self) -> int:
        """W in pixels."""
        return self.cover.shape[-1]


@lru_cache(maxsize=64)
def stamps(shapes: tuple[str, ...], radius: int) -> Stamps:
    """Return the stamps of some shapes with one radius, in quarters of a pixel.

    A stamp's corner is the pixel of the circle's left and top end, `(centre - radius) // Q`, its phase the remainder.
    """
    width = -(-2 * radius // Q) + 1
    # The centre lies at radius + phase from the stamp's corner.
    samples = 2 * np.arange(width * SAMPLES, dtype=np.int64) + 1
    steps = _UNIT // Q
    relative = samples[None, :] - (radius + np.arange(Q, dtype=np.int64)[:, None]) * steps
    x, y = relative[None, :, None, :], relative[:, None, :, None]
    shape = (Q, Q, width, SAMPLES, width, SAMPLES)
    cover = np.empty((len(shapes), Q, Q, width, width), np.uint8)
    for index, name in enumerate(shapes):
        inside = np.broadcast_to(_INSIDE[name](x, y, radius * steps), (Q, Q, width * SAMPLES, width * SAMPLES))
        cover[index] = inside.reshape(shape).sum((3, 5))
    half = 2 * cover >= FULL
    columns, rows = half.any(3), half.any(4)
    box = np.stack(
        [
            columns.argmax(3),
            rows.argmax(3),
            width - columns[..., ::-1].argmax(3),
            width - rows[..., ::-1].argmax(3),
        ],
        axis=3,
    )
    return Stamps(cover, box)


# Whether a point is inside, x and y relative to the centre, r the radius of a circle that no shape leaves.


def _circle(x, y, r):
    return x * x + y * y <= r * r


def _square(x, y, r):
    return 10 * np.maximum(abs(x), abs(y)) <= 7 * r


def _triangle(x, y, r):
    # Upright and equilateral: below the two slanted sides sqrt(3) |x| <= r + y, above the level one y <= r / 2.
    return (2 * y <= r) & (r + y >= 0) & (3 * x * x <= (r + y) ** 2)


def _cross(x, y, r):
    wide, high = (50 * abs(x) <= 47 * r) & (3 * abs(y) <= r), (3 * abs(x) <= r) & (50 * abs(y) <= 47 * r)
    return wide | high


def _star(x, y, r):
    # Five lines, each cutting off one tip: inside are the points beyond at most one of them.
    beyond = sum((x * tip_x + y * tip_y > r * _STAR_LINE).astype(np.int8) for tip_x, tip_y in _TIPS)
    return beyond <= 1


def _ring(x, y, r):
    squared = 400 * (x * x + y * y)
    return (squared <= 400 * r * r) & (squared >= 121 * r * r)


def _diamond(x, y, r):
    return abs(x) + abs(y) <= r


def _bar(x, y, r):
    return (100 * abs(x) <= 93 * r) & (20 * abs(y) <= 7 * r)


_INSIDE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "ring": _ring,
    "diamond": _diamond,
    "bar": _bar,
}
