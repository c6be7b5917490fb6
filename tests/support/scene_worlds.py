"""Worlds of scenes as the papers use them, and an independent reader of their records."""

from __future__ import annotations

import math
import re
from itertools import permutations

from components.data.scenes.world import World

FOUR = {"shapes": ["circle", "square", "triangle", "cross"], "colours": ["red", "green", "blue", "yellow"]}
DESCRIBED = {
    "plain-32": {"side": 32, "objects": [1, 3], "sizes": {"small": 3.25, "medium": 4.5, "large": 5.75}},
    "filled-32": {
        "side": 32,
        "objects": [1, 2],
        "sizes": {"small": 3.25, "medium": 4.5, "large": 5.75},
        "fills": ["plain", "striped", "dotted", "dark"],
    },
    "few-32": {
        "side": 32,
        "objects": [1, 4],
        "sizes": {"small": 3.25, "large": 4.75},
        **FOUR,
        "distinct": True,
        "sign": {"share": 50, "length": 1},
        "held_out": None,
    },
    "signs-48": {
        "side": 48,
        "objects": [1, 6],
        "sizes": {"small": 3.75, "large": 5.75},
        "shapes": ["circle", "square", "triangle", "cross", "star", "ring"],
        "texture": 24,
        "sign": {"share": 50, "length": 3},
        "held_out": "triples",
    },
    "marks-64": {
        "side": 64,
        "objects": [1, 4],
        "sizes": {"medium": 8.0, "large": 11.0},
        "shapes": ["circle", "square", "triangle", "diamond"],
        "marks": True,
    },
    "cells-24": {
        "side": 24,
        "objects": [2, 4],
        "sizes": {"only": 3.5},
        **FOUR,
        "distinct": True,
        "texture": 20,
        "sign": {"share": 100, "length": 1, "alphabet": 32},
        "grid": 3,
    },
    "quarters-16": {
        "side": 16,
        "objects": [1, 2],
        "sizes": {"small": 2.5, "large": 3.5},
        "shapes": ["circle", "square", "triangle", "cross"],
        "colours": ["red", "green", "blue", "yellow", "purple", "cyan"],
        "grounds": ["grey"],
        "grid": 2,
    },
    "crowded-32": {"side": 32, "objects": [1, 6], "sizes": {"small": 2.5, "medium": 3.5}, "grounds": ["black"]},
}
WORLDS = {name: World.of(described) for name, described in DESCRIBED.items()}


class Unclear(Exception):
    """The record gives more than one answer, or none."""


def answer(row: dict, question: str, cells: int = 3) -> str:
    """Answer a question from a row of the data set by going through its objects one by one."""
    for pattern, reader in _READERS:
        if match := re.fullmatch(pattern, question):
            return reader(row, cells, *match.groups())
    raise Unclear(f"no reader for {question!r}")


def cell_of(row: dict, thing: dict, cells: int) -> str:
    """Name the cell in which an object's centre is, with at least 1/48 of the side to every line between cells."""
    side, names = row["side"], []
    for value, words in ((thing["y"], _DOWN[cells]), (thing["x"], _ACROSS[cells])):
        for line in range(1, cells):
            if abs(value - line * side / cells) < side / 48 - 1e-9:
                raise Unclear(f"{thing} stands on the line {line} of {cells}")
        names.append(words[min(int(value * cells / side), cells - 1)])
    return "-".join(filter(None, names)) or "centre"


_DOWN = {2: ("top", "bottom"), 3: ("top", "", "bottom")}
_ACROSS = {2: ("left", "right"), 3: ("left", "", "right")}
_ORDINALS = ("first", "second", "third", "fourth")


def _fits(thing: dict, words: str) -> bool:
    """Whether every word is true of an object: a colour, a shape in singular or plural, a size, or "object(s)"."""
    own = {thing["colour"], thing["shape"], thing["size"], "object"}
    return all(word in own or word.removesuffix("s") in own or word.removesuffix("es") in own for word in words.split())


def _only(row: dict, cells: int, phrase: str) -> dict:
    place = re.fullmatch(r"object at the ([\w-]+)", phrase)
    if place:
        found = [thing for thing in row["objects"] if cell_of(row, thing, cells) == place[1]]
    else:
        found = [thing for thing in row["objects"] if _fits(thing, phrase)]
    if len(found) != 1:
        raise Unclear(f"{phrase!r} names {len(found)} objects")
    return found[0]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _exists(row, cells, phrase):
    return _yes(any(_fits(thing, phrase) for thing in row["objects"]))


def _counted(row, cells, phrase):
    return str(sum(_fits(thing, phrase) for thing in row["objects"]))


def _attribute(row, cells, attribute, phrase):
    return _only(row, cells, phrase)[attribute]


def _where(row, cells, phrase):
    return cell_of(row, _only(row, cells, phrase), cells)


def _related(row, cells, first, relation, second):
    one, other = _only(row, cells, first), _only(row, cells, second)
    axis = "x" if relation in ("left of", "right of") else "y"
    if abs(one[axis] - other[axis]) < row["side"] / 8 - 1e-9:
        raise Unclear("too near to tell")
    return _yes((one[axis] < other[axis]) == (relation in ("left of", "above")))


def _read(row, cells, ordinal):
    return row["sign"]["text"][_ORDINALS.index(ordinal)]


def _read_only(row, cells):
    (glyph,) = row["sign"]["text"]
    return glyph


def _shown(row, cells, text):
    return _yes(is_true(row, text))


_READERS = (
    (r"is there an? (.+)\?", _exists),
    (r"how many (.+) are there\?", _counted),
    (r"what (colour|shape|size) is the (.+)\?", _attribute),
    (r"where is the (.+)\?", _where),
    (r"is the (.+) (left of|right of|above|below) the (.+)\?", _related),
    (r"which glyph is (\w+) on the sign\?", _read),
    (r"which glyph is on the sign\?", _read_only),
    (r"does the picture show (.+)\?", _shown),
)


def is_true(row: dict, caption: str) -> bool:
    """Whether a plain caption is true of a row: some order of its objects says exactly these words."""
    return any(spelled(row, order) == caption for order in permutations(row["objects"]))


def spelled(row: dict, things: tuple) -> str:
    """The plain caption of a row whose objects are named in the given order."""
    names = []
    for thing in things:
        words = [thing["size"] if row["varies"]["size"] else "", thing["fill"].replace("plain", ""), thing["colour"]]
        named = " ".join(filter(None, [*words, thing["shape"]]))
        named = f"{'an' if named[0] in 'aeiou' else 'a'} {named}"
        if thing["mark_shape"]:
            mark = f"{thing['mark_colour']} {thing['mark_shape']}"
            named += f" marked with {'an' if mark[0] in 'aeiou' else 'a'} {mark}"
        names.append(named)
    if len(things) > 1:
        (x, y), (u, v) = ((thing["x"], thing["y"]) for thing in things[:2])
        across = math.fabs(x - u) >= math.fabs(y - v)
        relation = ("left of" if x < u else "right of") if across else ("above" if y < v else "below")
        names[:2] = [f"{names[0]} {relation} {names[1]}"]
    text = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    if row["sign"]["text"]:
        text += " with a sign reading " + " ".join(row["sign"]["text"])
    return text + (f" on a {row['background']} background" if row["varies"]["background"] else "")
