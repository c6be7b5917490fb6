"""Questions about scenes with one-word answers, balanced so that a model without the picture gains nothing.

| type     | example                                                       | answers                             |
|----------|---------------------------------------------------------------|-------------------------------------|
| exist    | is there a red circle?                                        | yes, no                             |
| count    | how many objects (red objects, circles, small objects) are there? | 0, 1, 2, ...                    |
| colour   | what colour is the circle (the small circle, the object at the top-left)? | colours                 |
| shape    | what shape is the red object (...)?                           | shapes                              |
| size     | what size is the red circle?                                  | sizes                               |
| relation | is the red circle left of the blue square?                    | yes, no                             |
| place    | where is the red circle?                                      | cells of a 3 x 3 grid, such as left |
| read     | which glyph is second on the sign?                            | glyphs                              |
| caption  | does the picture show a red circle left of a blue square?     | yes, no                             |

A question names an object by attributes that no other object of the scene shares. What would be a matter of a pixel is
not asked. Held-out combinations are neither shown nor named outside the split `combinations`.

Letters: `B` scenes, `K` objects of a scene (at most), `Q` questions of a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from components.data.scenes import captions
from components.data.scenes.balance import balanced
from components.data.scenes.draws import Purpose
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.question_types import GENERAL, ORDINALS, PLACES, TYPES, Asked, plural, read
from components.data.scenes.sampling import Scenes
from components.data.scenes.world import RELATIONS, ScenesError, World
from components.errors import did_you_mean

# How often further questions of all types are tried where a scene has too few.
_ATTEMPTS = 6
_SCHEMA = {"scene": pl.Int64, "type": pl.String, "question": pl.String, "answer": pl.String}


def ask(scenes: Scenes, types: Sequence[str], each: int) -> pl.DataFrame:
    """Ask questions about a batch of scenes.

    Where a scene has a sign and `read` is among the types, every glyph is asked for. The other questions are of types
    that are used equally often over the batch; none is asked twice of a scene. Answers are balanced over the batch.

    Args:
        scenes: What is asked about.
        types: Some of TYPES.
        each: Questions of each scene; a scene about which less can be asked has fewer.

    Returns:
        Columns `scene` (row of the batch), `type`, `question` and `answer`, sorted by scene.

    Raises:
        ScenesError: A type is unknown.
    """
    for kind in types:
        if kind not in TYPES:
            raise ScenesError(f"unknown question type {kind!r}.{did_you_mean(kind, TYPES)} Expected some of {TYPES}.")
    parts = []
    open_slots = np.full(len(scenes), each)
    if "read" in types and scenes.world.sign:
        for position in range(min(scenes.world.sign.length, each)):
            parts.append(_chosen(read(scenes, position), scenes.has_sign, "read", np.arange(len(scenes))))
            open_slots -= scenes.has_sign
    general = [kind for kind in types if kind != "read"]
    used = np.zeros(len(general), np.int64)
    before: dict[str, list[np.ndarray]] = {kind: [] for kind in general}
    for attempt in range(_ATTEMPTS):
        rows = np.flatnonzero(open_slots > 0)
        if not len(rows) or not general:
            break
        asked = []
        for kind in general:
            new = GENERAL[kind](scenes.at(rows), attempt)
            repeated = [earlier[rows] == new.question for earlier in before[kind]]
            asked.append(replace(new, possible=new.possible & ~np.any(repeated, 0)) if repeated else new)
            everywhere = np.full(len(scenes), None, object)
            everywhere[rows] = np.where(asked[-1].possible, new.question, None)
            before[kind].append(everywhere)
        free = np.stack([new.possible for new in asked], 1)
        for turn in range(len(general)):
            bits = scenes.draws.at(rows).bits(Purpose.TYPES, attempt * len(TYPES) + turn, len(general))
            picked = balanced(free & (open_slots[rows] > 0)[:, None], bits, used)
            for index, kind in enumerate(general):
                own = picked == index
                parts.append(_chosen(asked[index], own, kind, rows))
                used[index] += own.sum()
            taken = picked >= 0
            free[taken, picked[taken]] = False
            open_slots[rows] -= taken
    return pl.concat(parts).sort("scene", maintain_order=True) if parts else pl.DataFrame(schema=_SCHEMA)


def blind_accuracy(train: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """Return how often questions are answered rightly without a picture.

    The blind model knows the training questions by heart: it gives the answer that a text had most often there, or,
    to a new text, the most frequent answer of its type.

    Args:
        train: Columns `type`, `question`, `answer`.
        test: Likewise.

    Returns:
        Columns `type`, `questions` (number in `test`), `accuracy` (0 to 1), sorted by type.
    """

    def most_frequent(*by: str) -> pl.DataFrame:
        counted = (
            train.group_by(*by, "answer").len().sort(*by, "len", "answer", descending=[False] * len(by) + [True, False])
        )
        return counted.group_by(*by, maintain_order=True).first().drop("len")

    known = test.join(most_frequent("type", "question"), on=["type", "question"], how="left", suffix="_text")
    known = known.join(most_frequent("type"), on="type", how="left", suffix="_type")
    guess = pl.coalesce("answer_text", "answer_type")
    right = (guess == pl.col("answer")).fill_null(False)
    return known.group_by("type").agg(pl.len().alias("questions"), right.mean().alias("accuracy")).sort("type")


def vocabulary(world: World, types: Sequence[str]) -> list[str]:
    """Return every word of the questions and answers of a world, sorted."""
    numbers = [str(number) for number in range(world.objects[1] + 1)]
    plurals = [] if world.distinct else [plural(shape) for shape in world.shapes]
    article = {
        captions.with_article(name).split()[0] for name in (world.colours if len(world.colours) > 1 else world.shapes)
    }
    ordinals = ORDINALS[: world.sign.length] if world.sign and world.sign.length > 1 else ()
    glyphs = GLYPHS[: world.sign.alphabet] if world.sign else ()
    texts = {
        "exist": ["is there ? yes no", *article],
        "count": ["how many are there ? objects", *numbers, *plurals],
        "colour": ["what colour is the object at ?"],
        "shape": ["what shape is the object at ?"],
        "size": ["what size is the ?"],
        "relation": ["is the ? yes no", *RELATIONS],
        "place": ["where is the ?"],
        "read": ["which glyph is on the sign ?", *ordinals, *glyphs] if world.sign else [],
        "caption": ["does the picture show ? yes no", *captions.vocabulary(world)],
    }
    found = {word for kind in types for text in texts[kind] for word in captions.words(text)}
    return sorted(found | {*world.shapes, *world.sizes, *world.colours, *PLACES[world.cells]})


def _chosen(asked: Asked, own: np.ndarray, kind: str, rows: np.ndarray) -> pl.DataFrame:
    columns = [
        rows[own].astype(np.int64),
        [kind] * int(own.sum()),
        asked.question[own].tolist(),
        asked.answer[own].tolist(),
    ]
    return pl.DataFrame(dict(zip(_SCHEMA, columns, strict=True)), schema=_SCHEMA)
