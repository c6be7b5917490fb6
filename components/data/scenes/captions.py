"""Captions of scenes: one plain form, many paraphrases of it, and a parser that gives back what they say.

    caption  = [arrangement] [sign] [ground]
    thing    = "a" [size] [fill] colour shape ["marked with a" colour shape]
    two      = thing relation thing | relation thing "is" thing | thing verb thing | thing "is" participle "by" thing
    more     = two ("," thing)* "and" thing

What never varies in a world is not said: where all objects have one size, no caption names it. Every word that carries
meaning has synonyms, and a synonym belongs to one word only, so that parsing is exact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from components.data.scenes.descriptions import CONVERSE, Description, Thing
from components.data.scenes.draws import Draws, Purpose
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.world import GROUNDS, RELATIONS, ScenesError, World

SYNONYMS = {
    "small": ("little", "tiny", "minor"),
    "medium": ("middling", "moderate", "average"),
    "large": ("big", "huge", "giant"),
    "striped": ("banded", "streaked"),
    "dotted": ("spotted", "speckled"),
    "dark": ("dim", "shadowy"),
    "red": ("scarlet", "crimson", "ruby"),
    "green": ("emerald", "leafy", "jade"),
    "blue": ("cobalt", "azure", "navy"),
    "yellow": ("golden", "lemon", "canary"),
    "purple": ("violet", "lilac", "plum"),
    "cyan": ("turquoise", "aqua", "teal"),
    "orange": ("tangerine", "amber", "apricot"),
    "pink": ("rosy", "salmon", "coral"),
    "circle": ("disc", "dot", "coin"),
    "square": ("box", "block", "tile"),
    "triangle": ("wedge", "pyramid", "arrowhead"),
    "cross": ("plus", "crucifix", "crosspiece"),
    "star": ("pentagram", "starlet", "asterisk"),
    "ring": ("hoop", "loop", "band"),
    "diamond": ("rhombus", "lozenge", "kite"),
    "bar": ("strip", "plank", "beam"),
}
_RELATION_PHRASES = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "beneath", "lower than"),
}
# The first thing stands so to the second: "A precedes B", "B is preceded by A".
_VERBS = {
    "left of": ("precedes", "preceded"),
    "right of": ("follows", "followed"),
    "above": ("tops", "topped"),
    "below": ("supports", "supported"),
}
_GROUND_FORMS = ("on a {} background", "against a {} background", "on a {} backdrop", "against a {} backdrop")
_SIGN_FORMS = ("with a sign reading {}", "with a sign saying {}")
_MEANING = {synonym: word for word, synonyms in SYNONYMS.items() for synonym in synonyms}
_TRIES = 8
_PLACE = "@"
_GLYPH = "|".join(GLYPHS)
_SKELETON = re.compile(
    rf"(?P<head>.*?)(?:(?: , {_PLACE})* and {_PLACE})?"
    rf"(?: ?with a sign (?:reading|saying) (?P<sign>(?:{_GLYPH})(?: (?:{_GLYPH}))*))?"
    rf"(?: ?(?:on|against) a (?P<ground>{'|'.join(GROUNDS)}) (?:background|backdrop))?"
)
_WORD = re.compile(r"\w+(?:-\w+)*|[?,]")


def words(text: str) -> list[str]:
    """Split a caption or a question into words and punctuation marks."""
    return _WORD.findall(text)


def caption(described: Description) -> str:
    """Return the plain caption of a description, without synonyms."""
    things = [_thing(thing) for thing in described.things]
    if described.relation:
        things[:2] = [f"{things[0]} {described.relation} {things[1]}"]
    return _joined(_listed(things), described, _SIGN_FORMS[0], _GROUND_FORMS[0])


def paraphrase(described: Description, choice: int) -> str:
    """Return one of the captions that say what a description says.

    Args:
        described: What to say.
        choice: A large non-negative number; its remainders pick form, order and synonyms.
    """
    pick = _Choices(choice)
    rest = [_synonymous(thing, pick) for thing in described.things]
    listed = []
    if described.relation:
        first, second, *rest = rest
        listed = [_arrangement(first, described.relation, second, pick)]
    while rest:
        listed.append(rest.pop(pick(len(rest))))
    ground = pick.one_of(_GROUND_FORMS)
    return _joined(_listed(listed), described, pick.one_of(_SIGN_FORMS), ground)


def paraphrases(described: Sequence[Description], count: int, seed: int) -> list[list[str]]:
    """Return different captions for each of some descriptions.

    Args:
        described: What to say.
        count: Captions of each description.
        seed: Seed; a description's captions depend on its position alone.

    Raises:
        ScenesError: So many captions were not found, since too little can be said in other words.
    """
    draws = Draws.of(seed, 0, np.arange(len(described)))
    bits = draws.bits(Purpose.PARAPHRASE, 0, 2 * _TRIES * count).reshape(len(described), -1, 2).tolist()
    found = []
    for each, choices in zip(described, bits, strict=True):
        # A dictionary keeps the order in which captions were found.
        captions = {}
        for low, high in choices:
            captions[paraphrase(each, low << 64 | high)] = None
            if len(captions) == count:
                break
        else:
            raise ScenesError(f"no {count} captions found for {caption(each)!r}, only {len(captions)}; ask for fewer.")
        found.append(list(captions))
    return found


def parse(text: str, world: World) -> Description | None:
    """Return what a caption of a world says, or None where it is no caption of this grammar."""
    tokens = " ".join(_MEANING.get(word, word) for word in words(text))
    pattern = _thing_pattern(tuple(world.sizes), world.fills, world.colours, world.shapes, world.marks)
    things = [_named(match) for match in pattern.finditer(tokens)]
    skeleton = _SKELETON.fullmatch(pattern.sub(_PLACE, tokens))
    if not skeleton or skeleton["head"] not in _heads():
        return None
    sign, ground = skeleton["sign"], skeleton["ground"]
    if ground and (ground not in world.grounds or len(world.grounds) == 1):
        return None
    if sign and not (world.sign and set(sign.split()) <= set(GLYPHS[: world.sign.alphabet])):
        return None
    relation, turned = _heads()[skeleton["head"]]
    if turned:
        things[:2] = things[1::-1]
    return Description(tuple(things), relation, sign and sign.replace(" ", ""), ground)


def vocabulary(world: World, *, paraphrased: bool = False) -> list[str]:
    """Return every word of the captions of a world, sorted."""
    sizes = [*world.sizes] if len(world.sizes) > 1 else []
    fills = [fill for fill in world.fills if fill != "plain"]
    colours = [*world.colours] if len(world.colours) > 1 else []
    grounds = [*world.grounds] if len(world.grounds) > 1 else []
    spoken = [*sizes, *fills, *colours, *world.shapes, *grounds]
    # What may follow an article.
    heads = sizes or (fills if "plain" not in world.fills else [*fills, *(colours or world.shapes)])
    heads = [*heads, *world.colours] if world.marks else heads
    if paraphrased:
        spoken, heads = (
            [word for each in part for word in (each, *SYNONYMS.get(each, ()))] for part in (spoken, heads)
        )
    forms = ["a", *("an" for head in heads if head[0] in "aeiou")]
    if grounds:
        forms += _GROUND_FORMS if paraphrased else _GROUND_FORMS[:1]
    if world.objects[1] > 1:
        forms += [form for each in RELATIONS for form, _ in _forms(each)] if paraphrased else RELATIONS
    if world.objects[1] > 2:
        forms += ["and"]
    if world.objects[1] > 3:
        forms += [","]
    if world.marks:
        forms += ["marked with"]
    if world.sign:
        forms += [*(_SIGN_FORMS if paraphrased else _SIGN_FORMS[:1]), *GLYPHS[: world.sign.alphabet]]
    return sorted({*spoken, *words(re.sub(r"\{\d?\}", " ", " ".join(forms)))})


class _Choices:
    """Digits of a number in changing bases."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, count: int) -> int:
        self._number, digit = divmod(self._number, count)
        return digit

    def one_of(self, options: Sequence[str]) -> str:
        return options[self(len(options))]


def with_article(phrase: str) -> str:
    """Return a phrase with "a" or "an" before it."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


@lru_cache(maxsize=1 << 14)
def _thing(thing: Thing) -> str:
    named = with_article(" ".join(filter(None, (thing.size, thing.fill, thing.colour, thing.shape))))
    return f"{named} marked with {with_article(' '.join(thing.mark))}" if thing.mark else named


def _synonymous(thing: Thing, pick: _Choices) -> str:
    def other(word):
        return word and pick.one_of((word, *SYNONYMS.get(word, ())))

    mark = thing.mark and tuple(other(word) for word in thing.mark)
    return _thing(Thing(other(thing.size), other(thing.fill), other(thing.colour), other(thing.shape), mark))


def _forms(relation: str) -> list[tuple[str, bool]]:
    """Return the forms of "A relation B" with A at {0} and B at {1}; True where B is named first."""
    active, passive = _VERBS[relation]
    forms = []
    for phrase in _RELATION_PHRASES[relation]:
        forms += [(f"{{0}} {phrase} {{1}}", False), (f"{{0}} is {phrase} {{1}}", False)]
        forms += [(f"{phrase} {{1}} is {{0}}", True)]
    return [*forms, (f"{{0}} {active} {{1}}", False), (f"{{1}} is {passive} by {{0}}", True)]


def _arrangement(first: str, relation: str, second: str, pick: _Choices) -> str:
    if pick(2):
        first, relation, second = second, CONVERSE[relation], first
    forms = _forms(relation)
    return forms[pick(len(forms))][0].format(first, second)


def _listed(things: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(things[:-1]), *things[-1:]]))


def _joined(listed: str, described: Description, sign_form: str, ground_form: str) -> str:
    sign = sign_form.format(" ".join(described.sign)) if described.sign else ""
    ground = ground_form.format(described.ground) if described.ground else ""
    return " ".join(filter(None, (listed, sign, ground)))


@lru_cache(maxsize=64)
def _thing_pattern(sizes, fills, colours, shapes, marks: bool) -> re.Pattern:
    def slot(name: str, values: Sequence[str]) -> str:
        return f"(?P<{name}>{'|'.join(values)})"

    said = [fill for fill in fills if fill != "plain"]
    size = f"{slot('size', sizes)} " if len(sizes) > 1 else ""
    fill = f"(?:{slot('fill', said)} )" + ("?" if "plain" in fills else "") if said else ""
    colour = f"{slot('colour', colours)} " if len(colours) > 1 else ""
    mark = f" marked with an? {slot('mark_colour', colours)} {slot('mark_shape', shapes)}" if marks else ""
    return re.compile(rf"\ban? {size}{fill}{colour}{slot('shape', shapes)}\b{mark}")


def _named(match: re.Match) -> Thing:
    found = match.groupdict()
    mark = (found["mark_colour"], found["mark_shape"]) if found.get("mark_colour") else None
    return Thing(found.get("size"), found.get("fill"), found.get("colour"), found["shape"], mark)


@lru_cache(maxsize=1)
def _heads() -> dict[str, tuple[str | None, bool]]:
    """Return the relation and the order of naming by the words around the first things, each shown as _PLACE."""
    heads = {
        form.format(_PLACE, _PLACE): (relation, turned) for relation in RELATIONS for form, turned in _forms(relation)
    }
    return {**heads, _PLACE: (None, False), "": (None, False)}
