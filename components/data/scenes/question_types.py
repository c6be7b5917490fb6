"""The types of questions: each asks one question about every scene of a batch.

Letters: `B` scenes, `K` objects of a scene (at most).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from components.data.scenes import captions, descriptions
from components.data.scenes.balance import balanced
from components.data.scenes.draws import Purpose
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.sampling import Scenes
from components.data.scenes.world import RELATIONS, Q, World

PLACES = {
    2: ("top-left", "top-right", "bottom-left", "bottom-right"),
    3: ("top-left", "top", "top-right", "left", "centre", "right", "bottom-left", "bottom", "bottom-right"),
}
ORDINALS = ("first", "second", "third", "fourth")
# How many objects of one colour, shape or size are asked about at most; more are rare.
_MOST_COUNTED = 4
_FALSIFICATIONS = 9
_YES_NO = np.array(["no", "yes"], object)


@dataclass(frozen=True)
class Asked:
    """One question about each scene of a batch.

    Attributes:
        possible: Which scenes have such a question, bool (B,); entries of the others are meaningless.
        question: Texts, object (B,).
        answer: Words, object (B,).
    """

    possible: np.ndarray
    question: np.ndarray
    answer: np.ndarray


def _exist(scenes: Scenes, attempt: int) -> Asked:
    """Ask for a pair that is there, or for one that differs from it in one attribute and is not.

    Half of the latter join attributes that the scene shows, but on different objects.
    """
    world, draws = scenes.world, scenes.draws
    rows = np.arange(len(scenes))
    subject = draws.choice(scenes.present, Purpose.SUBJECT, attempt)
    own_shape, own_colour = scenes.shape[rows, subject], scenes.colour[rows, subject]
    shape, colour = np.divmod(np.arange(len(world.shapes) * len(world.colours)), len(world.colours))
    near = (shape == own_shape[:, None]) ^ (colour == own_colour[:, None])
    if not scenes.unseen:
        near &= ~world.held_out_table.all(2).ravel()
    shown_pair, shown_shape, shown_colour = (
        _shown(codes, scenes.present, count)
        for codes, count in (
            (_pair(scenes), len(shape)),
            (scenes.shape, len(world.shapes)),
            (scenes.colour, len(world.colours)),
        )
    )
    near &= ~shown_pair
    mixed = near & shown_shape[:, shape] & shown_colour[:, colour]
    coins = draws.integers(2, Purpose.COIN, 2, attempt)
    options = np.where((mixed.any(1) & (coins[:, 1] == 1))[:, None], mixed, near)
    absent = draws.choice(options, Purpose.OPTION, attempt)
    yes = coins[:, 0] == 1
    pair = np.where(yes, own_shape * len(world.colours) + own_colour, absent)
    text = np.array([f"is there {captions.with_article(name)}?" for name in _pair_names(world)], object)
    return Asked(yes | near.any(1), text[pair], _YES_NO[yes.astype(int)])


def _count(scenes: Scenes, attempt: int) -> Asked:
    """Ask for the number of all objects, or of those of a colour, a shape or a size."""
    world, present = scenes.world, scenes.present
    least, most = world.objects
    groups = [("objects", scenes.count[:, None], ["objects"])] if least < most else []
    if not world.distinct:
        groups.append(
            ("colour", _tally(scenes.colour, present, len(world.colours)), [f"{c} objects" for c in world.colours])
        )
        groups.append(("shape", _tally(scenes.shape, present, len(world.shapes)), [plural(s) for s in world.shapes]))
    groups.append(("size", _tally(scenes.size, present, len(world.sizes)), [f"{s} objects" for s in world.sizes]))
    # What has one value only is the number of all objects.
    groups = [group for group in groups if group[0] == "objects" or len(group[2]) > 1]
    if not groups:
        return Asked(np.zeros(len(scenes), bool), *(np.full(len(scenes), "", object) for _ in range(2)))
    counts = np.hstack([tally for _, tally, _ in groups])
    group = np.repeat(np.arange(len(groups)), [len(names) for _, _, names in groups])
    # One option for each group and each number that it can have.
    fits, option_group, option_number = [], [], []
    for index, (kind, _, _) in enumerate(groups):
        for number in range(least, most + 1) if kind == "objects" else range(min(_MOST_COUNTED, most) + 1):
            fits.append((counts[:, group == index] == number).any(1))
            option_group.append(index)
            option_number.append(number)
    chosen = _balance(scenes, np.stack(fits, 1), attempt)
    possible = chosen >= 0
    wanted_group, number = np.array(option_group)[chosen], np.array(option_number)[chosen]
    options = (group == wanted_group[:, None]) & (counts == number[:, None])
    which = scenes.draws.choice(options, Purpose.OPTION, attempt)
    text = np.array([f"how many {name} are there?" for _, _, names in groups for name in names], object)
    return Asked(possible, text[which], np.array([str(n) for n in range(world.objects[1] + 1)], object)[number])


def _colour(scenes: Scenes, attempt: int) -> Asked:
    return _attribute(scenes, attempt, "colour", scenes.colour, scenes.world.colours, scenes.shape, scenes.world.shapes)


def _shape(scenes: Scenes, attempt: int) -> Asked:
    named = [f"{colour} object" for colour in scenes.world.colours]
    return _attribute(scenes, attempt, "shape", scenes.shape, scenes.world.shapes, scenes.colour, named)


def _attribute(scenes: Scenes, attempt: int, asked: str, values, names, other, other_names) -> Asked:
    """Ask for an attribute of an object named by the other one, by size and the other one, or by its place."""
    world = scenes.world
    sizes, others = len(world.sizes), len(other_names)
    ways = [(_alone(scenes, other), other, [f"the {name}" for name in other_names])]
    if sizes > 1:
        code = scenes.size * others + other
        ways.append(
            (_alone(scenes, code), code, [f"the {size} {name}" for size in world.sizes for name in other_names])
        )
    cell, clear = _cells(scenes)
    in_cell = _alone(scenes, cell) & (clear | ~scenes.present).all(1, keepdims=True)
    ways.append((in_cell, cell, [f"the object at the {place}" for place in PLACES[world.cells]]))
    if others == 1:
        # In a world of one shape or colour that attribute names nothing.
        del ways[0]
    named = np.stack([alone for alone, _, _ in ways], 2) & scenes.present[:, :, None]
    fits = _shown(values, named.any(2), len(names))
    chosen = _balance(scenes, fits, attempt)
    options = named & (values == chosen[:, None])[:, :, None]
    which = scenes.draws.choice(options.reshape(len(scenes), -1), Purpose.OPTION, attempt)
    subject, way = which // len(ways), which % len(ways)
    rows = np.arange(len(scenes))
    question = np.empty(len(scenes), object)
    for index, (_, code, phrases) in enumerate(ways):
        own = way == index
        text = np.array([f"what {asked} is {phrase}?" for phrase in phrases], object)
        question[own] = text[code[rows, subject][own]]
    return Asked(chosen >= 0, question, np.array(names, object)[chosen])


def _size(scenes: Scenes, attempt: int) -> Asked:
    world = scenes.world
    pair = _pair(scenes)
    named = scenes.present
    if not scenes.unseen:
        # A pair of which a size is held out would tell its size by name.
        named = named & ~world.held_out_table.any(2).ravel()[pair]
    chosen = _balance(scenes, _shown(scenes.size, named, len(world.sizes)), attempt)
    subject = scenes.draws.choice(named & (scenes.size == chosen[:, None]), Purpose.OPTION, attempt)
    text = np.array([f"what size is the {name}?" for name in _pair_names(world)], object)
    question = text[pair[np.arange(len(scenes)), subject]]
    return Asked((chosen >= 0) & (len(world.sizes) > 1), question, np.array(list(world.sizes), object)[chosen])


def _place(scenes: Scenes, attempt: int) -> Asked:
    world = scenes.world
    cell, clear = _cells(scenes)
    clear = clear & scenes.present
    chosen = _balance(scenes, _shown(cell, clear, world.cells**2), attempt)
    subject = scenes.draws.choice(clear & (cell == chosen[:, None]), Purpose.OPTION, attempt)
    text = np.array([f"where is the {name}?" for name in _pair_names(world)], object)
    question = text[_pair(scenes)[np.arange(len(scenes)), subject]]
    return Asked(chosen >= 0, question, np.array(PLACES[world.cells], object)[chosen])


def _relation(scenes: Scenes, attempt: int) -> Asked:
    """Ask whether one object is left of, right of, above or below another; the opposite holds where it is not."""
    world, draws = scenes.world, scenes.draws
    most = scenes.shape.shape[1]
    apart = scenes.centre[:, :, None] - scenes.centre[:, None, :]
    both = scenes.present[:, :, None] & scenes.present[:, None, :] & ~np.eye(most, dtype=bool)
    # An eighth of the side apart along the axis that is asked about.
    options = both[..., None] & (8 * abs(apart) >= world.side * Q)
    which = draws.choice(options.reshape(len(scenes), -1), Purpose.OPTION, attempt)
    first, second, axis = which // (2 * most), which // 2 % most, which % 2
    rows = np.arange(len(scenes))
    holds = 2 * axis + (apart[rows, first, second, axis] > 0)
    yes = draws.integers(2, Purpose.COIN, 1, attempt)[:, 0] == 1
    said = np.where(yes, holds, holds ^ 1)
    pair, names = _pair(scenes), np.array(_pair_names(world), object)
    start = np.array([f"is the {name} " for name in names], object)
    end = np.array([[f"{relation} the {name}?" for name in names] for relation in RELATIONS], object)
    question = start[pair[rows, first]] + end[said, pair[rows, second]]
    return Asked(options.any((1, 2, 3)), question, _YES_NO[yes.astype(int)])


def _caption(scenes: Scenes, attempt: int) -> Asked:
    """Ask whether a caption is true; a false one differs in one attribute, in who has it, or in the relation."""
    numbers = scenes.draws.bits(Purpose.CHANGE, attempt, 3)
    yes = scenes.draws.integers(2, Purpose.COIN, 1, attempt)[:, 0] == 1
    question, possible = np.empty(len(scenes), object), np.ones(len(scenes), bool)
    for row, described in enumerate(descriptions.describe(scenes)):
        if not yes[row]:
            described = _falsified(described, scenes.world, scenes.unseen, [int(number) for number in numbers[row]])
            possible[row] = described is not None
        question[row] = f"does the picture show {captions.caption(described)}?" if described else ""
    return Asked(possible, question, _YES_NO[yes.astype(int)])


def _falsified(described, world: World, unseen: bool, numbers: list[int]):
    things, attributes = len(described.things), descriptions.ATTRIBUTES
    kind, where, choice = numbers
    for turn in range(3 * _FALSIFICATIONS):
        attribute = attributes[(where // things + turn // 3) % 3]
        first = (where + turn // 9) % things
        if (kind + turn) % 3 == 0:
            false = descriptions.with_replaced(described, world, first, attribute, choice + turn)
        elif (kind + turn) % 3 == 1 and things > 1:
            second = (first + 1 + choice % (things - 1)) % things
            false = descriptions.with_swapped(described, first, second, attribute)
        else:
            false = descriptions.with_flipped(described)
        if false and descriptions.possible(false, world, unseen=unseen):
            return false
    return None


def read(scenes: Scenes, position: int) -> Asked:
    """Ask for the glyph at a position of the sign."""
    length = scenes.world.sign.length
    text = f"which glyph is {ORDINALS[position]} on the sign?" if length > 1 else "which glyph is on the sign?"
    answer = np.array(GLYPHS, object)[scenes.glyphs[:, position]]
    return Asked(scenes.has_sign, np.full(len(scenes), text, object), answer)


GENERAL: dict[str, Callable[[Scenes, int], Asked]] = {
    "exist": _exist,
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "relation": _relation,
    "place": _place,
    "caption": _caption,
}
TYPES = (*GENERAL, "read")


def _balance(scenes: Scenes, fits: np.ndarray, attempt: int) -> np.ndarray:
    return balanced(fits, scenes.draws.bits(Purpose.ANSWER, attempt, fits.shape[1]))


def _pair(scenes: Scenes) -> np.ndarray:
    return scenes.shape * len(scenes.world.colours) + scenes.colour


def _pair_names(world: World) -> list[str]:
    if len(world.colours) == 1:
        return list(world.shapes)
    return [f"{colour} {shape}" for shape, colour in product(world.shapes, world.colours)]


def plural(shape: str) -> str:
    """Return the plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


def _shown(codes: np.ndarray, present: np.ndarray, count: int) -> np.ndarray:
    """Return which codes (B, K) occur among the objects that count, bool (B, count)."""
    return ((codes[:, :, None] == np.arange(count)) & present[:, :, None]).any(1)


def _tally(codes: np.ndarray, present: np.ndarray, count: int) -> np.ndarray:
    """Return how many of the objects that count have each code, int64 (B, count)."""
    return ((codes[:, :, None] == np.arange(count)) & present[:, :, None]).sum(1)


def _alone(scenes: Scenes, codes: np.ndarray) -> np.ndarray:
    """Return which objects have a code (B, K) that no other object of their scene has, bool (B, K)."""
    present = scenes.present
    equal = (codes[:, :, None] == codes[:, None, :]) & present[:, None, :]
    return (equal.sum(2) == 1) & present


def _cells(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each centre, row by row, and whether it is well inside, int64 and bool (B, K)."""
    world = scenes.world
    edge = world.side * Q
    place = scenes.centre * world.cells
    across, down = np.moveaxis(place // edge, 2, 0)
    # A 48th of the side away from every line between cells, one pixel at 48.
    lines = edge * np.arange(1, world.cells)
    clear = (48 * abs(place[..., None] - lines) >= edge * world.cells).all((2, 3))
    return down * world.cells + across, clear
