"""Labels of patches against the rendered masks, pixel by pixel."""

import numpy as np
import pytest

from components.data import tables
from components.data.scenes.glyphs import GLYPHS
from components.data.scenes.rendering import glyph_boxes
from components.multimodal.patch_labels import ATTRIBUTES, label_sizes
from components.multimodal.scene_table import SceneTableError, read_scenes, vocabulary_of
from components.multimodal.words import WordVocabulary
from flows.studies.multimodal import standin


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    made = tmp_path_factory.mktemp("shapes-48")
    standin.make("shapes-48", made)
    return made


def test_every_patch_is_labelled_by_what_covers_most_of_it(directory):
    from components.data import png

    scenes = read_scenes(directory, "train", 16, 4)
    rows = tables.read_split(directory, "train", ["mask", "objects", "sign"]).head(16)
    masks = png.decode(rows["mask"].to_list())[..., 0]
    names = [scenes.world.shapes, scenes.world.colours, tuple(scenes.world.sizes)]
    for row, (objects, sign) in enumerate(zip(rows["objects"], rows["sign"], strict=True)):
        boxes = glyph_boxes(np.array(sign["box"])) if sign["text"] else np.zeros((0, 4), int)
        for patch in range(144):
            top, left = 4 * (patch // 12), 4 * (patch % 12)
            pixels = masks[row, top : top + 4, left : left + 4]
            counts = [int((pixels == 1 + index).sum()) for index in range(len(objects))]
            label = [int(value) for value in scenes.labels[row, patch]]
            if max(counts) >= 4:
                shown = objects[counts.index(max(counts))]
                words = [shown["shape"], shown["colour"], shown["size"]]
                assert label[:3] == [1 + known.index(word) for known, word in zip(names, words, strict=True)]
            else:
                assert label[:3] == [0, 0, 0]
            covered = [
                max(0, min(right, left + 4) - max(x, left)) * max(0, min(bottom, top + 4) - max(y, top))
                for x, y, right, bottom in boxes.tolist()
            ]
            if covered and max(covered) >= 4:
                place = covered.index(max(covered))
                assert label[3:5] == [1 + GLYPHS.index(sign["text"][place]), 1 + place]
            else:
                assert label[3:5] == [0, 0]
            centred = [left <= each["x"] < left + 4 and top <= each["y"] < top + 4 for each in objects]
            assert label[5] == any(centred)


def test_every_glyph_of_a_sign_has_a_patch_of_its_own(directory):
    scenes = read_scenes(directory, "train", 48, 4)
    signs = [row["text"] for row in tables.read_split(directory, "train", ["sign"])["sign"]]
    for row, text in enumerate(signs):
        found = {int(place) for place in scenes.labels[row, :, 4]} - {0}
        assert found == set(range(1, 1 + len(text)))


def test_labels_stay_below_their_number_of_classes(directory):
    scenes = read_scenes(directory, "train", 48, 4)
    sizes = label_sizes(scenes.world)
    assert len(sizes) == len(ATTRIBUTES)
    assert sizes == (7, 9, 3, 17, 4, 2)
    assert (scenes.labels.amax((0, 1)).numpy() < np.array(sizes)).all()


def test_scenes_are_read_from_a_place_on_and_refused_where_there_are_none(directory):
    whole, part = read_scenes(directory, "train", 48, 4), read_scenes(directory, "train", 5, 4, first=40)
    assert len(part) == 5
    assert (part.pictures == whole.pictures[40:45]).all()
    assert part.captions == whole.captions[40:45]
    assert part.questions["row"].unique().to_list() == [0, 1, 2, 3, 4]
    with pytest.raises(SceneTableError, match="0 scenes"):
        read_scenes(directory, "train", 5, 4, first=100)
    with pytest.raises(SceneTableError, match="do not divide"):
        read_scenes(directory, "train", 5, 5)


def test_the_vocabulary_covers_every_text(directory):
    scenes = read_scenes(directory, "train", 48, 4)
    words = WordVocabulary(vocabulary_of(scenes))
    for texts in (scenes.captions, scenes.questions["question"].to_list(), scenes.questions["answer"].to_list()):
        table, lengths = words.table(texts)
        assert words.decode(table[0, : lengths[0]].tolist()).split() == texts[0].split()
