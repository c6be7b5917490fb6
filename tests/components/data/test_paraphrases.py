"""Paraphrase pairs: both sides say the same by an independent reading, and the metric knows right from wrong."""

import dataclasses
import json
from collections import Counter

import polars as pl
import pytest

from components.data import shapes, tables
from components.data.paraphrases import LONGEST, ParaphraseError, ParaphraseTask, mismatched
from components.data.scenes.captions import parse
from components.data.scenes.descriptions import CONVERSE, same

WORLD = {"side": 32, "objects": [1, 3], "sizes": {"small": 3.25, "medium": 4.5, "large": 5.75}}
SPLITS = {"train": 60, "test": 40}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, world=WORLD, seed=3, scenes=SPLITS)
    size = (folder / "shapes.parquet").stat().st_size
    splits = {"by": "column", "column": "split", "names": list(SPLITS)}
    meta = {"name": "shapes", "tables": {"shapes.parquet": {"bytes": size}}, "splits": splits}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def task(directory):
    return ParaphraseTask.of(directory)


def test_both_sides_name_the_first_two_objects_of_their_scene_and_differ(task, directory):
    rows = {row["scene"]: row for row in tables.read_split(directory, "test").iter_rows(named=True)}
    pairs = task.pairs(directory, "test", 100, 0)
    assert len(pairs) == 100
    assert all(pair.source != pair.target for pair in pairs)
    for pair in pairs:
        objects = rows[pair.scene]["objects"]
        assert len(objects) >= 2
        shown = Counter((each["size"], each["colour"], each["shape"]) for each in objects[:2])
        for side in (pair.source, pair.target):
            said = parse(" ".join(side), task.world)
            assert Counter((thing.size, thing.colour, thing.shape) for thing in said.things) == shown
            assert same(said, pair.meaning)
            assert 9 <= len(side) <= LONGEST
            assert set(side) <= set(task.words)
        assert task.valid(pair.target, pair.meaning)
        assert task.plain(pair.meaning) == tuple(" ".join(task.plain(pair.meaning)).split())


def test_scenes_are_used_in_turn_and_a_scene_has_new_captions_each_time(task, directory):
    usable = sum(len(objects) >= 2 for objects in tables.read_split(directory, "train")["objects"].to_list())
    pairs = task.pairs(directory, "train", 2 * usable + 3, 0)
    assert [pair.scene for pair in pairs[:usable]] == [pair.scene for pair in pairs[usable : 2 * usable]]
    captions = {(pair.scene, side) for pair in pairs[: 2 * usable] for side in (pair.source, pair.target)}
    assert len(captions) == 4 * usable
    assert task.pairs(directory, "train", 5, 0) != task.pairs(directory, "train", 5, 1)


def test_every_word_of_the_vocabulary_is_used_and_there_are_many_targets(task, directory):
    pairs = task.pairs(directory, "train", 3000, 0)
    assert {word for pair in pairs for word in pair.target} == set(task.words)
    of_one = {pair.target for pair in pairs if pair.scene == pairs[0].scene}
    assert len(of_one) >= 6


def test_a_wrong_word_relation_or_order_of_things_is_not_valid(task, directory):
    for pair in task.pairs(directory, "test", 30, 0):
        meaning = pair.meaning
        plain = task.plain(meaning)
        assert task.valid(plain, meaning)
        flipped = dataclasses.replace(meaning, relation=CONVERSE[meaning.relation])
        assert not task.valid(task.plain(flipped), meaning)
        turned = dataclasses.replace(flipped, things=meaning.things[::-1])
        assert task.valid(task.plain(turned), meaning)
        other = next(
            colour for colour in task.world.colours if colour not in {thing.colour for thing in meaning.things}
        )
        wrong = [other if word == meaning.things[0].colour else word for word in plain]
        assert not task.valid(wrong, meaning)
        assert task.parses(wrong)
        assert not task.parses(plain[:-1])
        assert not task.valid((*plain, *plain[-1:]), meaning)


def test_a_wrong_source_means_something_else(task, directory):
    pairs = task.pairs(directory, "test", 60, 0)
    wrong = mismatched(pairs)
    assert not any(task.valid(pairs[other].source, pairs[at].meaning) for at, other in enumerate(wrong))
    with pytest.raises(ParaphraseError, match="means the same"):
        mismatched(pairs[:1] * 3)


def test_data_without_two_objects_is_refused(task, directory, tmp_path):
    frame = tables.read_split(directory, "train").filter(pl.col("objects").list.len() == 1)
    frame.write_parquet(tmp_path / "shapes.parquet")
    meta = {"name": "shapes", "tables": {}, "splits": {"by": "column", "column": "split", "names": ["train"]}}
    meta["tables"]["shapes.parquet"] = {"bytes": (tmp_path / "shapes.parquet").stat().st_size}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ParaphraseError, match="no scene of two objects"):
        task.pairs(tmp_path, "train", 3, 0)
