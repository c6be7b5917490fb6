"""Which patches show which object, pixel by pixel, and which objects some patches hit."""

import json

import numpy as np
import pytest
import torch
from scene_worlds import WORLDS

from components.data.scenes.rendering import render
from components.data.scenes.sampling import draw
from components.data.shapes import table
from components.metrics.tables import write_parquet
from components.multimodal.object_patches import object_patches, read_object_patches

WORLD = WORLDS["signs-48"]


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    return render(draw(WORLD, 3, "test", np.arange(20))).masks


def test_a_patch_shows_an_object_that_covers_a_quarter_of_it(masks):
    found = object_patches(masks, 6, 4)
    assert found.shown.shape == (20, 6, 144)
    for scene, mask in enumerate(masks[:6]):
        for index in range(6):
            for patch in range(144):
                row, column = 4 * (patch // 12), 4 * (patch % 12)
                pixels = (mask[row : row + 4, column : column + 4] == 1 + index).sum()
                assert bool(found.shown[scene, index, patch]) == (pixels >= 4)
    assert torch.equal(found.exists, found.shown.any(2))


def test_every_object_of_a_scene_exists_and_no_sign_does(masks):
    found = object_patches(masks, 6, 4)
    there = [[bool((mask == 1 + index).any()) for index in range(6)] for mask in masks]
    assert found.exists.tolist() == there


def test_an_object_is_hit_when_one_of_its_patches_is_kept():
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :4, :4], masks[0, 4:, 4:] = 1, 2
    found = object_patches(masks, 3, 4)
    hits = [int(found.hit(torch.tensor([kept]))) for kept in ([1, 2], [0, 1], [2, 3], [0, 3], [0, 1, 2, 3])]
    assert hits == [0, 1, 1, 2, 2]


def test_objects_are_read_from_a_data_set(tmp_path, masks):
    file = tmp_path / "shapes.parquet"
    write_parquet(table(draw(WORLD, 3, "test", np.arange(20)), "test", ("exist",), 2), file)
    splits = {"by": "column", "column": "split", "names": ["test"]}
    meta = {"splits": splits, "tables": {file.name: {"bytes": file.stat().st_size}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    read = read_object_patches(tmp_path, "test", 12, 6, 4)
    assert torch.equal(read.shown, object_patches(masks[:12], 6, 4).shown)
