"""Drawing scenes at random: which objects stand where.

Letters: `B` scenes, `K` objects of a scene (at most), `L` glyphs of a sign. Places are in quarters of a pixel from the
top left corner, x to the right, y down; the centre of the first pixel is (2, 2).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from components.data.scenes import glyphs
from components.data.scenes.draws import Draws, Purpose
from components.data.scenes.world import GAP, SPLITS, Q, ScenesError, World
from components.errors import did_you_mean

TEXTURES = 16
TILE = 16
# Places tried at once for an object, and how often a scene is begun anew when one of its objects finds none.
_CANDIDATES = 16
_ATTEMPTS = 400


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes; entries of absent objects (index >= count) and of absent signs are meaningless.

    Attributes:
        world: What may stand in them; indices below are into its tuples of names.
        draws: Random numbers of each scene, for what is said and asked about it.
        unseen: Each scene shows a held-out combination; otherwise none does.
        count: Objects of each scene, int64 (B,).
        shape: int64 (B, K).
        colour: int64 (B, K).
        size: int64 (B, K).
        fill: int64 (B, K).
        mark_shape: int64 (B, K).
        mark_colour: int64 (B, K).
        centre: x and y in quarters of a pixel, int64 (B, K, 2).
        ground: int64 (B,).
        texture: Kind of the background's texture, int64 (B,); -1 for a plain one.
        phase: Shift of the texture in x and y in pixels, int64 (B, 2).
        has_sign: bool (B,).
        glyphs: Index into GLYPHS, int64 (B, L).
        sign_at: Left and top of the sign in pixels, int64 (B, 2).
    """

    world: World
    draws: Draws
    unseen: bool
    count: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    fill: np.ndarray
    mark_shape: np.ndarray
    mark_colour: np.ndarray
    centre: np.ndarray
    ground: np.ndarray
    texture: np.ndarray
    phase: np.ndarray
    has_sign: np.ndarray
    glyphs: np.ndarray
    sign_at: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    def at(self, rows: np.ndarray) -> Scenes:
        """Return some of the scenes."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("world", "unseen", "draws")}
        return replace(self, draws=self.draws.at(rows), **{name: values[rows] for name, values in arrays.items()})

    @property
    def radius(self) -> np.ndarray:
        """Radius of the circle around each object in quarters of a pixel, int64 (B, K)."""
        return self.world.radii[self.size]

    @property
    def present(self) -> np.ndarray:
        """Which objects exist, bool (B, K)."""
        return np.arange(self.shape.shape[1]) < self.count[:, None]


def sign_size(world: World) -> tuple[int, int]:
    """Return width and height of a world's signs in pixels: glyphs one pixel apart, and a plate around them."""
    margin = 0 if world.grid else 1
    width = world.sign.length * (glyphs.WIDTH + 1) - 1
    return width + 2 * margin, glyphs.HEIGHT + 2 * margin


def draw(world: World, seed: int, split: str, numbers: np.ndarray) -> Scenes:
    """Draw scenes at random.

    Each scene is a function of (world, seed, split, number) alone. The number of objects, backgrounds, fills, glyphs
    and the kinds of objects (among the allowed, distinct ones) are uniform, and so are places, as far as objects and
    signs do not touch one another.

    Args:
        world: What may stand in a scene.
        seed: Seed.
        split: One of SPLITS; every scene of `combinations` shows a held-out combination, no other scene does.
        numbers: Numbers of the scenes within the split, (B,).

    Raises:
        ScenesError: So many objects do not fit into a scene, or there is no such split.
    """
    if split not in SPLITS:
        raise ScenesError(f"unknown split {split!r}.{did_you_mean(split, SPLITS)} Expected one of {', '.join(SPLITS)}.")
    unseen = split == "combinations"
    if unseen and world.held_out is None:
        raise ScenesError("the split combinations needs held_out: pairs or triples; this world holds out nothing.")
    draws = Draws.of(seed, SPLITS.index(split), np.asarray(numbers, np.int64))
    least, most = world.objects
    count = least + draws.integers(most - least + 1, Purpose.COUNT)[:, 0]
    shape, colour, size = _kinds(world, draws, count, unseen)
    mark_colour = draws.integers(max(len(world.colours) - 1, 1), Purpose.MARK_COLOUR, most)
    length = world.sign.length if world.sign else 0
    has_sign = np.zeros(len(draws), bool)
    if world.sign:
        has_sign = draws.integers(100, Purpose.SIGN)[:, 0] < world.sign.share
    texture = draws.integers(TEXTURES, Purpose.TEXTURE)[:, 0] if world.texture else np.full(len(draws), -1)
    scenes = Scenes(
        world=world,
        draws=draws,
        unseen=unseen,
        count=count,
        shape=shape,
        colour=colour,
        size=size,
        fill=draws.integers(len(world.fills), Purpose.FILL, most),
        mark_shape=draws.integers(len(world.shapes), Purpose.MARK_SHAPE, most),
        # Every colour but the body's.
        mark_colour=mark_colour + (mark_colour >= colour),
        centre=np.zeros((len(draws), most, 2), np.int64),
        ground=draws.integers(len(world.grounds), Purpose.GROUND)[:, 0],
        texture=texture,
        phase=draws.integers(TILE, Purpose.TEXTURE, 3)[:, 1:],
        has_sign=has_sign,
        glyphs=draws.integers(world.sign.alphabet if world.sign else 1, Purpose.GLYPHS, length),
        sign_at=np.zeros((len(draws), 2), np.int64),
    )
    if world.grid:
        _place_in_cells(scenes)
    else:
        _place_freely(scenes)
    return scenes


def _kinds(world: World, draws: Draws, count: np.ndarray, unseen: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw shape, colour and size of every object, each int64 (B, K)."""
    colours, sizes, most = len(world.colours), len(world.sizes), world.objects[1]
    held = world.held_out_table
    if unseen:
        options = np.broadcast_to(held.ravel(), (len(draws), held.size))
        first = draws.choice(options, Purpose.UNSEEN)
        first_pair, first_size = first // sizes, first % sizes
    else:
        first_pair = None
    choose = _distinct_pairs if world.distinct else _pairs
    pair = choose(world, draws, first_pair, count)
    # The allowed sizes of a pair, packed to the front.
    allowed = ~held.reshape(-1, sizes)
    packed = (~allowed).argsort(1, kind="stable")
    step = draws.integers(allowed.sum(1)[pair], Purpose.SIZE, most)
    size = packed[pair, step]
    if unseen:
        size[:, 0] = first_size
        # The held-out combination may stand at any place of the list.
        rows, place = np.arange(len(draws)), draws.integers(count[:, None], Purpose.UNSEEN_PLACE)[:, 0]
        for values in (pair, size):
            values[rows, place], values[rows, 0] = values[rows, 0], values[rows, place].copy()
    return pair // colours, pair % colours, size


def _pairs(world: World, draws: Draws, first: np.ndarray | None, count: np.ndarray) -> np.ndarray:
    """Draw different shape-colour pairs, int64 (B, K); `first` (B,) comes first where it is given."""
    bits = draws.bits(Purpose.KINDS, 0, world.held_out_table[..., 0].size) | np.uint64(1)
    # Pairs of which no size is allowed come last.
    bits[:, world.held_out_table.all(2).ravel()] = np.iinfo(np.uint64).max
    if first is not None:
        bits[np.arange(len(draws)), first] = 0
    return bits.argsort(1, kind="stable")[:, : world.objects[1]]


def _distinct_pairs(world: World, draws: Draws, first: np.ndarray | None, count: np.ndarray) -> np.ndarray:
    """Draw pairs that differ in shape and in colour, int64 (B, K); `first` (B,) comes first where it is given."""
    colours, most = len(world.colours), world.objects[1]
    blocked = world.held_out_table.all(2).ravel()
    pair = np.zeros((len(draws), most), np.int64)
    rows = np.arange(len(draws))
    checked = np.arange(most) < count[:, None]
    checked[:, 0] &= first is None
    for attempt in range(_ATTEMPTS):
        part = draws.at(rows)
        shape_bits = part.bits(Purpose.KINDS, attempt, len(world.shapes)) | np.uint64(1)
        colour_bits = part.bits(Purpose.COLOURS, attempt, colours) | np.uint64(1)
        if first is not None:
            shape_bits[np.arange(len(rows)), first[rows] // colours] = 0
            colour_bits[np.arange(len(rows)), first[rows] % colours] = 0
        drawn = [bits.argsort(1, kind="stable")[:, :most] for bits in (shape_bits, colour_bits)]
        pair[rows] = drawn[0] * colours + drawn[1]
        rows = rows[(blocked[pair[rows]] & checked[rows]).any(1)]
        if not len(rows):
            return pair
    raise ScenesError(
        f"{most} objects of different shapes and colours leave no combination that is not held out; ask for fewer "
        "objects, or for more shapes and colours."
    )


def _place_freely(scenes: Scenes) -> None:
    """Place signs and objects one after the other, large ones first, so that none touch; in place."""
    world = scenes.world
    rows = np.arange(len(scenes))
    for attempt in range(_ATTEMPTS):
        failed = _place_once(scenes, rows, attempt)
        rows = rows[failed]
        if not len(rows):
            return
    raise ScenesError(
        f"{len(rows)} of {len(scenes)} scenes of {world.side} pixels found no place for {world.objects[0]} to "
        f"{world.objects[1]} objects of {dict(world.sizes)} in {_ATTEMPTS} attempts; ask for fewer or smaller objects."
    )


def _place_once(scenes: Scenes, rows: np.ndarray, attempt: int) -> np.ndarray:
    """Place everything in the scenes `rows`, in place; return which of them have an object without a place."""
    world, part = scenes.world, scenes.draws.at(rows)
    edge = world.side * Q
    radius = np.where(scenes.present[rows], scenes.radius[rows], 0)
    largest_first = (-radius).argsort(1, kind="stable")
    here = np.arange(len(rows))
    if world.sign:
        width, height = sign_size(world)
        # One free pixel on every side.
        room = np.array([world.side - 1 - width, world.side - 1 - height])
        if room.min() < 1:
            raise ScenesError(f"a sign of {width} x {height} pixels does not fit into scenes of {world.side} pixels.")
        scenes.sign_at[rows] = 1 + part.integers(room, Purpose.SIGN_PLACE, 2, attempt)
        corner = scenes.sign_at[rows] * Q
        far = corner + np.array([width, height]) * Q
    failed = np.zeros(len(rows), bool)
    centres = np.zeros((len(rows), world.objects[1], 2), np.int64)
    radii = np.zeros((len(rows), world.objects[1]), np.int64)
    for turn in range(world.objects[1]):
        index = largest_first[:, turn]
        own = radius[here, index]
        margin = (own + GAP)[:, None]
        span = edge - 2 * margin + 1
        places = part.integers(span, Purpose.PLACE, 2 * _CANDIDATES, attempt * world.objects[1] + turn) + margin
        places = places.reshape(len(rows), _CANDIDATES, 2)
        apart = ((places[:, :, None] - centres[:, None, :turn]) ** 2).sum(3)
        least = (radii[:, :turn] + own[:, None] + GAP) ** 2
        free = (apart >= least[:, None]).all(2)
        if world.sign:
            nearest = np.clip(places, corner[:, None], far[:, None])
            clear = ((places - nearest) ** 2).sum(2) >= (margin**2)
            free &= clear | ~scenes.has_sign[rows, None]
        # An absent object has radius 0 and may stand anywhere; it never blocks another, since it comes last.
        failed |= ~free.any(1) & (own > 0)
        centres[:, turn] = places[here, free.argmax(1)]
        radii[:, turn] = own
    scenes.centre[rows[:, None], largest_first] = centres
    return failed


def _place_in_cells(scenes: Scenes) -> None:
    """Place objects and sign into different cells, each as far from the middle as its size allows; in place."""
    world, draws = scenes.world, scenes.draws
    cell = world.side * Q // world.grid
    if cell * world.grid != world.side * Q:
        raise ScenesError(f"a side of {world.side} pixels has no grid of {world.grid} x {world.grid} cells.")
    order = draws.order(world.grid**2, Purpose.CELL)
    corners = np.stack([order % world.grid, order // world.grid], 2) * cell
    most = world.objects[1]
    slack = (cell - 2 * scenes.radius)[:, :, None]
    shift = draws.integers(slack.repeat(2, 2).reshape(len(scenes), -1) + 1, Purpose.PLACE, 2 * most)
    scenes.centre[:] = corners[:, :most] + scenes.radius[:, :, None] + shift.reshape(len(scenes), most, 2)
    if world.sign:
        width, height = sign_size(world)
        room = np.array([cell // Q - width, cell // Q - height])
        if room.min() < 0:
            raise ScenesError(f"a sign of {width} x {height} pixels does not fit into a cell of {cell // Q} pixels.")
        scenes.sign_at[:] = corners[:, most] // Q + draws.integers(room + 1, Purpose.SIGN_PLACE, 2)
