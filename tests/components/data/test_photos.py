"""Photographs and digits that ship in installed packages."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data import digits, parquet, photos
from components.data.registry import load_declarations

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    directory = tmp_path_factory.mktemp("photos")
    (source,) = load_declarations(ROOT / "params/data.yaml")["photos"].sources
    photos.collect(directory, **source.parameters)
    return parquet.read(directory / "photos.parquet")


def test_every_photograph_is_the_shipped_file_in_colour_and_its_stated_size(collected):
    for row in collected.rows(named=True):
        image = Image.open(io.BytesIO(row["image"]))
        assert image.mode == "RGB", row["name"]
        assert (image.height, image.width) == (row["height"], row["width"])
        assert min(image.size) >= 300
        assert row["credit"]


def test_scikit_learns_photographs_equal_what_it_loads(collected):
    from sklearn.datasets import load_sample_image

    for name in ("china", "flower"):
        (image,) = collected.filter(name=name)["image"]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), load_sample_image(f"{name}.jpg"))


def test_the_stereo_pair_is_one_scene_and_the_only_one(collected):
    pairs = collected.group_by("group").len().filter(len=2)["group"].to_list()
    assert pairs == ["motorcycle"]


def test_bytes_are_those_of_the_wheel(collected):
    (image,) = collected.filter(name="astronaut")["image"]
    assert image == files("skimage").joinpath("data/astronaut.png").read_bytes()


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    digits.read(tmp_path)
    frame = parquet.read(tmp_path / "digits.parquet")
    expected = load_digits()
    np.testing.assert_array_equal(frame["image"].to_numpy(), expected.data)
    np.testing.assert_array_equal(frame["label"].to_numpy(), expected.target)
