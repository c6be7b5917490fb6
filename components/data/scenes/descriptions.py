"""What a caption says about a scene, free of wording: things, the relation of two, a sign and the background.

Letters: `B` scenes, `K` objects of a scene (at most).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.sampling import Scenes
from components.data.scenes.world import RELATIONS, World

CONVERSE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
ATTRIBUTES = ("colour", "shape", "size")


@dataclass(frozen=True)
class Thing:
    """An object as a caption names it; what never varies in a world is None.

    Attributes:
        size: Name of its size.
        fill: Its fill, None where it is plain.
        colour: Name of its colour.
        shape: Name of its shape.
        mark: Colour and shape of the figure inside it.
    """

    size: str | None
    fill: str | None
    colour: str | None
    shape: str
    mark: tuple[str, str] | None = None


@dataclass(frozen=True)
class Description:
    """What is said about a scene.

    Attributes:
        things: Its objects; their order carries no meaning apart from the relation.
        relation: One of RELATIONS, how the first thing stands to the second; None where there are fewer.
        sign: Glyphs of the sign, None where there is no sign.
        ground: Colour of the background, None where it is not said.
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    sign: str | None = None
    ground: str | None = None


def describe(scenes: Scenes) -> list[Description]:
    """Describe each scene: every object, how the first object stands to the second, sign and background.

    Of two objects the first is left or right of the second if they are farther apart across than down, else above or
    below it.
    """
    world = scenes.world
    sizes = list(world.sizes) if len(world.sizes) > 1 else [None]
    fills = [None if fill == "plain" else fill for fill in world.fills]
    colours = world.colours if len(world.colours) > 1 else [None]
    grounds = world.grounds if len(world.grounds) > 1 else [None]
    relations = relation_of(scenes.centre[:, 0], scenes.centre[:, 1]).tolist() if world.objects[1] > 1 else None
    marks = zip(scenes.mark_colour.tolist(), scenes.mark_shape.tolist(), strict=True)
    columns = (scenes.size, scenes.fill, scenes.colour, scenes.shape, scenes.glyphs)
    described = []
    for row, (count, size, fill, colour, shape, sign, mark) in enumerate(
        zip(scenes.count.tolist(), *(column.tolist() for column in columns), marks, strict=True)
    ):
        things = tuple(
            Thing(
                sizes[size[k]],
                fills[fill[k]],
                colours[colour[k]],
                world.shapes[shape[k]],
                (world.colours[mark[0][k]], world.shapes[mark[1][k]]) if world.marks else None,
            )
            for k in range(count)
        )
        described.append(
            Description(
                things,
                RELATIONS[relations[row]] if count > 1 else None,
                "".join(GLYPHS[glyph] for glyph in sign) if scenes.has_sign[row] else None,
                grounds[scenes.ground[row]],
            )
        )
    return described


def relation_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how places (B, 2) stand to others, an index into RELATIONS, int64 (B,)."""
    across, down = (first - second).T
    return np.where(abs(across) >= abs(down), np.where(across < 0, 0, 1), np.where(down < 0, 2, 3))


def same(one: Description, other: Description) -> bool:
    """Return whether two descriptions say the same: order aside, and "A left of B" being "B right of A"."""
    return _normal(one) == _normal(other)


def _normal(described: Description):
    things, relation = described.things, described.relation
    if relation is None:
        return Counter(things), None, described.sign, described.ground
    first, second = things[:2]
    if relation in ("right of", "below"):
        first, second, relation = second, first, CONVERSE[relation]
    return Counter(things), (first, relation, second), described.sign, described.ground


def possible(described: Description, world: World, *, unseen: bool = False) -> bool:
    """Return whether a world has scenes that are so: all things different, none held out (unless `unseen`).

    A false caption that no scene of the world could have would be told from a true one without looking.
    """
    kinds = [(thing.colour, thing.shape) for thing in described.things]
    if len(set(kinds)) < len(kinds):
        return False
    if world.distinct and any(len({kind[part] for kind in kinds}) < len(kinds) for part in (0, 1)):
        return False
    if any(thing.mark and thing.mark[0] == thing.colour for thing in described.things):
        return False
    return unseen or not any(_held_out(thing, world) for thing in described.things)


def _held_out(thing: Thing, world: World) -> bool:
    sizes = list(world.sizes)
    colour = world.colours.index(thing.colour) if thing.colour else 0
    size = sizes.index(thing.size) if thing.size else 0
    return bool(world.held_out_table[world.shapes.index(thing.shape), colour, size])


def with_replaced(described: Description, world: World, thing: int, attribute: str, choice: int) -> Description | None:
    """Return the description with one attribute of one thing changed to a value that no thing of the scene has.

    Args:
        described: What is true.
        world: World of the scene.
        thing: Index of the thing.
        attribute: One of ATTRIBUTES.
        choice: Non-negative; picks the value.

    Returns:
        A false description, or None where the scene shows every value.
    """
    values = {"colour": world.colours, "shape": world.shapes, "size": tuple(world.sizes)}[attribute]
    shown = {getattr(each, attribute) for each in described.things}
    absent = [value for value in values if value not in shown]
    if None in shown or not absent:
        return None
    return _changed(described, {thing: {attribute: absent[choice % len(absent)]}})


def with_swapped(described: Description, first: int, second: int, attribute: str) -> Description | None:
    """Return the description with one attribute of two things exchanged.

    None where that leaves the same things: then only the relation would be said of other ones, and may be true of them.
    """
    one, other = (getattr(described.things[thing], attribute) for thing in (first, second))
    swapped = _changed(described, {first: {attribute: other}, second: {attribute: one}})
    return None if Counter(swapped.things) == Counter(described.things) else swapped


def with_flipped(described: Description) -> Description | None:
    """Return the description with the relation turned into its converse; None where there is none."""
    return described.relation and replace(described, relation=CONVERSE[described.relation])


def _changed(described: Description, changes: Mapping[int, Mapping[str, str]]) -> Description:
    things = [replace(thing, **changes.get(index, {})) for index, thing in enumerate(described.things)]
    return replace(described, things=tuple(things))
