"""Questions: every answer read off the record by brute force, nothing asked that is unclear, nothing to guess from."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import polars as pl
import pytest
from scene_worlds import DESCRIBED, WORLDS, answer

from components.data import shapes
from components.data.scenes import captions, questions
from components.data.scenes.questions import TYPES, ask, blind_accuracy
from components.data.scenes.sampling import draw
from components.data.scenes.world import ScenesError, World

NAMES = list(WORLDS)
EACH = 8
# What a model without the picture may reach at most (share of right answers), and the most frequent answer's share. A
# uniform guess would reach 1 over the number of answers.
_YES_NO = {"exist": 0.55, "relation": 0.55, "caption": 0.55}
BLIND = {
    "plain-32": {**_YES_NO, "count": 0.45, "colour": 0.17, "shape": 0.17, "size": 0.38, "place": 0.14},
    "few-32": {**_YES_NO, "count": 0.34, "colour": 0.30, "shape": 0.30, "size": 0.55, "place": 0.15, "read": 0.09},
    "signs-48": {**_YES_NO, "count": 0.32, "colour": 0.19, "shape": 0.24, "size": 0.55, "place": 0.13, "read": 0.09},
    "marks-64": {**_YES_NO, "count": 0.40, "colour": 0.18, "shape": 0.32, "size": 0.55, "place": 0.14},
}


@cache
def asked(name: str, split: str = "train", blocks: int = 1) -> tuple[pl.DataFrame, list[dict]]:
    """Questions of whole blocks, and the rows they are about, as the data set has them."""
    world = WORLDS[name]
    tables, rows = [], []
    for block in range(blocks):
        scenes = draw(world, 0, split, np.arange(block * 1024, (block + 1) * 1024))
        tables.append(ask(scenes, TYPES, EACH).with_columns(pl.col("scene") + block * 1024))
        if not block:
            rows = shapes.table(scenes, split).drop("image", "mask", "part", "depth").rows(named=True)
    varies = {"size": len(world.sizes) > 1, "background": len(world.grounds) > 1}
    return pl.concat(tables), [row | {"side": world.side, "varies": varies} for row in rows]


@pytest.mark.parametrize("split", ["train", "combinations"])
@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_what_a_brute_force_reader_finds_in_the_record(name, split):
    world = WORLDS[name]
    if split == "combinations" and not world.held_out:
        return  # holds out nothing
    table, rows = asked(name, split)
    for scene, kind, question, said in table.filter(pl.col("scene") < 1024).rows():
        if kind == "caption" and len(rows[scene]["objects"]) > 4:
            # Going through the orders of six objects takes too long.
            continue
        assert answer(rows[scene], question, world.cells) == said, (kind, question, rows[scene])


@pytest.mark.parametrize("name", NAMES)
def test_no_question_is_asked_twice_of_a_scene(name):
    table, _ = asked(name)
    assert table.select(pl.struct("scene", "question").is_duplicated().any()).item() is False


@pytest.mark.parametrize("name", ["plain-32", "few-32", "signs-48", "marks-64", "filled-32"])
def test_every_scene_has_all_its_questions(name):
    table, _ = asked(name)
    assert (table.group_by("scene").len()["len"] == EACH).all()
    assert table["scene"].n_unique() == 1024


def test_a_scene_with_a_sign_has_a_question_for_every_glyph():
    table, rows = asked("signs-48")
    reads = dict(table.filter(type="read").group_by("scene").len().rows())
    assert {scene for scene in reads} == {scene for scene, row in enumerate(rows) if row["sign"]["text"]}
    assert set(reads.values()) == {3}


@pytest.mark.parametrize("name", ["plain-32", "few-32", "signs-48", "marks-64"])
def test_general_types_are_asked_equally_often_where_scenes_allow_it(name):
    table, _ = asked(name, blocks=2)
    counts = dict(table.filter(pl.col("type") != "read").group_by("type").len().rows())
    assert set(counts) == set(TYPES) - {"read"}
    # A relation needs two objects, a place one away from the lines; of these there are not enough for all scenes.
    free = {kind: count for kind, count in counts.items() if kind not in ("relation", "place", "size")}
    assert max(free.values()) <= 1.06 * min(free.values())
    assert min(counts.values()) >= 0.5 * max(counts.values())


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_blind_model_gains_little_of_any_type(name):
    train, _ = asked(name, blocks=8)
    test, _ = asked(name, "test", blocks=2)
    found = blind_accuracy(train, test)
    print(name, {kind: round(accuracy, 3) for kind, _, accuracy in found.rows()})
    for kind, count, accuracy in found.rows():
        assert accuracy <= BLIND[name][kind], (kind, accuracy)
        assert count >= 500
    for kind in BLIND[name]:
        share = train.filter(type=kind)["answer"].value_counts(normalize=True)["proportion"].max()
        assert share <= BLIND[name][kind], (kind, share)


@pytest.mark.parametrize("name", ["plain-32", "few-32", "signs-48", "marks-64"])
def test_answers_with_enough_scenes_are_given_equally_often(name):
    table, _ = asked(name, blocks=8)
    for kind in ("colour", "shape", "size", "place"):
        counts = table.filter(type=kind)["answer"].value_counts()["count"]
        assert counts.max() <= 1.15 * counts.min(), kind
    for kind in ("exist", "relation", "caption"):
        yes = (table.filter(type=kind)["answer"] == "yes").mean()
        assert abs(yes - 0.5) < 0.025, kind


def test_texts_of_yes_and_no_questions_do_not_tell_the_answer():
    table, _ = asked("signs-48", blocks=8)
    for kind in ("exist", "relation"):
        own = table.filter(type=kind).with_columns(yes=pl.col("answer") == "yes")
        by_text = own.group_by("question").agg(pl.len(), pl.col("yes").mean()).filter(pl.col("len") >= 60)
        assert ((by_text["yes"] - 0.5).abs() < 5 * 0.5 / by_text["len"].sqrt() + 0.05).all(), kind
    # Half of what is asked for in vain joins a colour and a shape that the scene shows apart.
    _, rows = asked("signs-48")
    joined = total = 0
    for scene, question in (
        table.filter(pl.col("scene") < 1024, type="exist", answer="no").select("scene", "question").rows()
    ):
        colour, shape = re.fullmatch(r"is there an? (\w+) (\w+)\?", question).groups()
        things = rows[scene]["objects"]
        shown = any(thing["colour"] == colour for thing in things), any(thing["shape"] == shape for thing in things)
        assert any(shown)
        total += len(things) > 1
        joined += all(shown)
    assert 0.35 < joined / total < 0.75


@pytest.mark.parametrize("name", [name for name in NAMES if WORLDS[name].held_out])
@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_combinations_are_not_even_named_outside_their_split(name, split):
    world = WORLDS[name]
    named = set()
    for shape, colour, size in np.argwhere(world.held_out_table):
        kind = f"{world.colours[colour]} {world.shapes[shape]}"
        named.add(kind if world.held_out == "pairs" else f"{list(world.sizes)[size]} {kind}")
    table, rows = asked(name, split)
    bodies = re.compile(r" marked with an? \w+ \w+")
    texts = [*table["question"].to_list(), *(row["caption"] for row in rows)]
    spoken = {text for text in texts for kind in named if re.search(rf"\b{kind}s?\b", bodies.sub("", text))}
    assert not spoken
    rare, _ = asked(name, "combinations")
    assert any(kind in text for text in rare["question"] for kind in named)


@pytest.mark.parametrize("name", ["signs-48", "few-32"])
def test_the_size_of_a_kind_seen_in_one_size_only_is_not_asked_for(name):
    world = WORLDS[name]
    half = {
        f"what size is the {world.colours[colour]} {world.shapes[shape]}?"
        for shape, colour in np.argwhere(world.held_out_table.any(2))
    }
    assert not half & set(asked(name)[0]["question"])


def test_questions_of_a_batch_do_not_depend_on_how_it_is_drawn_and_others_differ():
    world = WORLDS["signs-48"]
    first = ask(draw(world, 0, "train", np.arange(300)), TYPES, EACH)
    assert first.equals(ask(draw(world, 0, "train", np.arange(400)).at(np.arange(300)), TYPES, EACH))
    assert not first.equals(ask(draw(world, 1, "train", np.arange(300)), TYPES, EACH))


@pytest.mark.parametrize("name", NAMES)
def test_words_of_all_questions_are_in_the_vocabulary(name):
    world = WORLDS[name]
    table, _ = asked(name, blocks=8 if name in BLIND else 1)
    texts = [*table["question"].unique(), *table["answer"].unique()]
    spoken = {word for text in texts for word in captions.words(text)}
    known = set(questions.vocabulary(world, TYPES))
    assert spoken <= known
    if name in BLIND:
        assert spoken == known


def test_fewer_types_and_fewer_questions_are_obeyed():
    scenes = draw(WORLDS["signs-48"], 0, "train", np.arange(100))
    table = ask(scenes, ["exist", "read"], 2)
    assert set(table["type"]) == {"exist", "read"}
    assert (table.group_by("scene").len()["len"] == 2).all()
    assert ask(scenes, [], 8).height == ask(scenes, ["exist"], 0).height == 0


def test_count_is_not_asked_where_it_is_always_the_same():
    fixed = draw(World.of(DESCRIBED["cells-24"] | {"objects": [3, 3]}), 0, "train", np.arange(50))
    assert ask(fixed, ["count"], 4).height == 0


def test_an_unknown_type_is_refused():
    with pytest.raises(ScenesError, match=r"unknown question type 'counts'. Did you mean 'count'\?"):
        ask(draw(WORLDS["plain-32"], 0, "train", np.arange(4)), ["counts"], 2)


def test_the_blind_model_knows_texts_by_heart_and_guesses_by_type_otherwise():
    train = pl.DataFrame(
        {
            "type": ["a", "a", "a", "a", "b"],
            "question": ["p", "p", "p", "q", "r"],
            "answer": ["yes", "no", "no", "yes", "x"],
        }
    )
    # "p" was answered no, "new" gets the type's tie of yes and no (the first in the alphabet), "r" of type b is x.
    test = pl.DataFrame(
        {"type": ["a", "a", "b", "c"], "question": ["p", "new", "r", "r"], "answer": ["no", "no", "y", "x"]}
    )
    found = {kind: (count, accuracy) for kind, count, accuracy in blind_accuracy(train, test).rows()}
    assert found == {"a": (2, 1.0), "b": (1, 0.0), "c": (1, 0.0)}
