"""What may stand in a scene: shapes, colours, sizes, grounds, marks and signs, and which combinations are held out.

Lengths of a world are in quarters of a pixel (`q`), which are exact in binary and show every phase of anti-aliasing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from components.data.scenes.glyphs import GLYPHS
from components.errors import TesseraError, did_you_mean

# In the order of how well they are told apart at four pixels' radius, so that the first four or six serve small worlds.
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring", "diamond", "bar")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
    "purple": (140, 60, 180),
    "cyan": (60, 200, 210),
    "orange": (245, 140, 30),
    "pink": (245, 150, 190),
}
GROUNDS = {"black": (15, 15, 15), "grey": (128, 128, 128), "white": (225, 225, 225), "brown": (95, 65, 40)}
FILLS = ("plain", "striped", "dotted", "dark")
RELATIONS = ("left of", "right of", "above", "below")
SPLITS = ("train", "validation", "test", "combinations")

Q = 4
# Free space between the outlines of two objects, and between an outline and the border of the scene.
GAP = Q
_KNOWN = {"shapes": SHAPES, "colours": tuple(COLOURS), "grounds": tuple(GROUNDS), "fills": FILLS}
_THIN = frozenset({"cross", "star", "ring", "bar"})
# A mark's radius is less than half its body's: a triangle's inscribed circle has half the radius.
MARK_SHARE = (9, 20)


class ScenesError(TesseraError):
    """Scenes that cannot be made as asked."""


@dataclass(frozen=True)
class Sign:
    """Signs of a world: a white plate with glyphs in a row (in a grid the bare glyph, which fills its cell).

    Attributes:
        share: Share of the scenes that hold a sign, in hundredths.
        length: Glyphs of a sign.
        alphabet: The glyphs are uniform among the first so many of GLYPHS.
    """

    share: int = 50
    length: int = 3
    alphabet: int = 16

    def __post_init__(self):
        _check_range("sign.share (hundredths)", self.share, 1, 100)
        _check_range("sign.length", self.length, 1, 4)
        _check_range("sign.alphabet", self.alphabet, 2, len(GLYPHS))


@dataclass(frozen=True)
class World:
    """What may stand in a scene.

    Attributes:
        side: Side of a scene in pixels.
        objects: Least and greatest number of objects of a scene, uniform between.
        sizes: Radius of the circle around an object in pixels, a multiple of 1/4, by the name of the size.
        shapes: Some of SHAPES.
        colours: Some of COLOURS.
        grounds: Some of GROUNDS.
        fills: Some of FILLS.
        distinct: The objects of a scene differ in shape and in colour; otherwise only in the pair of both.
        texture: Greatest deviation of the background from its colour in grey levels; 0 gives plain backgrounds.
        marks: Every object has a smaller figure of another colour inside it.
        sign: Which scenes hold a sign; None for none.
        grid: Objects and signs stand in separate cells of a grid of so many rows and columns; None for free places.
        held_out: What only scenes of the split `combinations` show: `pairs` (one colour per shape) or `triples` (a
            tenth of the combinations of shape, colour and size); None for nothing.
    """

    side: int
    objects: tuple[int, int]
    sizes: Mapping[str, float]
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    grounds: tuple[str, ...] = tuple(GROUNDS)
    fills: tuple[str, ...] = ("plain",)
    distinct: bool = False
    texture: int = 0
    marks: bool = False
    sign: Sign | None = None
    grid: int | None = None
    held_out: str | None = "pairs"

    def __post_init__(self):
        _check_range("side", self.side, 8, 256)
        least, most = self.objects
        if not 1 <= least <= most <= 32:
            raise ScenesError(f"objects is {list(self.objects)}; expected two counts with 1 <= least <= most <= 32.")
        _check_range("texture", self.texture, 0, 100)
        if self.grid is not None:
            _check_range("grid", self.grid, 2, 8)
        for name, known in _KNOWN.items():
            chosen = tuple(getattr(self, name))
            if not chosen or len(set(chosen)) < len(chosen):
                raise ScenesError(f"{name} is {list(chosen)}; expected one or more different names.")
            for value in chosen:
                if value not in known:
                    near = did_you_mean(value, known)
                    raise ScenesError(f"{name} has {value!r}.{near} Expected some of {', '.join(known)}.")
        self._check_sizes()
        if self.marks and (thin := set(self.shapes) & _THIN):
            raise ScenesError(f"marks need bodies with room inside; leave {', '.join(sorted(thin))} out of shapes.")
        if self.marks and len(self.colours) < 2:
            raise ScenesError("marks need a second colour; name two or more colours.")
        kinds = min(len(self.shapes), len(self.colours)) if self.distinct else len(self.shapes) * len(self.colours)
        if most > kinds:
            raise ScenesError(f"{most} objects cannot all differ in a world of {kinds} kinds; ask for fewer objects.")
        if self.grid and most + (self.sign is not None) > self.grid**2:
            raise ScenesError(f"{most} objects and a sign need more cells than {self.grid} x {self.grid}.")
        if self.held_out not in (None, "pairs", "triples"):
            raise ScenesError(f"held_out is {self.held_out!r}; expected pairs, triples or null.")
        self._check_held_out()

    def _check_sizes(self) -> None:
        if not self.sizes:
            raise ScenesError("sizes is empty; expected radii in pixels by name, such as {small: 3.5, large: 5.5}.")
        for name, radius in self.sizes.items():
            if radius * Q != int(radius * Q) or not 1.5 <= radius <= self.cell / 2:
                raise ScenesError(
                    f"size {name} has a radius of {radius} pixels; expected a multiple of 1/4 from 1.5 to "
                    f"{self.cell / 2:g} (half of a {'cell' if self.grid else 'scene'})."
                )

    def _check_held_out(self) -> None:
        seen = ~self.held_out_table
        if not (seen.any((1, 2)).all() and seen.any((0, 2)).all() and seen.any((0, 1)).all()):
            raise ScenesError(
                f"holding out {self.held_out} would hide a whole shape, colour or size of this world; use more of "
                "them, or held_out: null."
            )

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> World:
        """Return the world that a parameter file describes.

        Raises:
            ScenesError: A key is unknown or missing, or a value does not fit.
        """
        return _build(cls, described, "world")

    @property
    def cell(self) -> float:
        """Side of the square in which an object has to fit, in pixels."""
        return self.side / (self.grid or 1)

    @cached_property
    def radii(self) -> np.ndarray:
        """Radius of each size in quarters of a pixel, int64."""
        return np.array([int(radius * Q) for radius in self.sizes.values()], np.int64)

    @cached_property
    def held_out_table(self) -> np.ndarray:
        """Which combinations of shape, colour and size are held out, bool (shapes, colours, sizes)."""
        counts = len(self.shapes), len(self.colours), len(self.sizes)
        shape, colour, size = np.indices(counts)
        if self.held_out == "pairs":
            return (shape + colour) % max(counts[:2]) == 0
        if self.held_out == "triples":
            # Two sizes of one shape and colour differ by 5, so that at least one of them is seen.
            return (shape + 3 * colour + 5 * size) % 10 == 0
        return np.zeros(counts, bool)

    @cached_property
    def palette(self) -> np.ndarray:
        """Colours of objects, int16 (colours, 3)."""
        return np.array([COLOURS[name] for name in self.colours], np.int16)

    @cached_property
    def ground_palette(self) -> np.ndarray:
        """Colours of backgrounds, int16 (grounds, 3)."""
        return np.array([GROUNDS[name] for name in self.grounds], np.int16)

    @property
    def cells(self) -> int:
        """Rows and columns of the cells that questions name: the grid's where it has two or three, else three."""
        return self.grid if self.grid in (2, 3) else 3


def _build(kind: type, described: Mapping[str, Any], where: str):
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for key in described:
        if key not in fields:
            raise ScenesError(f"{where} has no {key!r}.{did_you_mean(key, fields)} Expected some of {sorted(fields)}.")
    missing = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in described
    ]
    if missing:
        raise ScenesError(f"{where} lacks {', '.join(missing)}.")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    if values.get("sign") is not None:
        values["sign"] = _build(Sign, values["sign"], f"{where}.sign")
    return kind(**values)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        raise ScenesError(f"{name} is {value!r}; expected a whole number from {least} to {most}.")
