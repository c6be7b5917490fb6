"""Data sets of scenes: rows say what their pictures show, and equal arguments give equal bytes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from scene_worlds import DESCRIBED, WORLDS, answer, is_true

from components.data import parquet, png, shapes
from components.data.content import content_sha256
from components.data.declaration import DataSet
from components.data.scenes import captions, rendering
from components.data.scenes.glyphs import GLYPHS, INK
from components.data.scenes.world import COLOURS, GROUNDS, ScenesError

QUESTIONS = {"types": ["exist", "count", "colour", "shape", "size", "relation", "place", "read"], "each": 8}
WORLD = DESCRIBED["signs-48"]
DECLARED = yaml.safe_load((Path(__file__).parents[3] / "params/data.yaml").read_text())
SETS = [
    name
    for name, declared in DECLARED.items()
    if any(source.get("function") == "components.data.shapes.generate" for source in declared["sources"])
]


def made(directory: Path, **changes) -> pl.DataFrame:
    arguments = {"world": WORLD, "seed": 5, "scenes": {"train": 300, "combinations": 40}, "questions": QUESTIONS}
    shapes.generate(directory, **(arguments | changes))
    return parquet.read(directory / "shapes.parquet")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return made(tmp_path_factory.mktemp("shapes"))


def test_pictures_and_masks_are_png_files_of_the_declared_side(table):
    for column, mode in (("image", "RGB"), ("mask", "L"), ("part", "L"), ("depth", "L")):
        for file in table[column][:5]:
            image = Image.open(io.BytesIO(file))
            assert (image.size, image.mode) == ((48, 48), mode)


def nearest_colour(pixels: np.ndarray, ground: str) -> str:
    """The colour from which pixels, each mixed with the ground by half at most, are least far away."""
    away = {}
    for name, colour in COLOURS.items():
        full = np.array(colour, float)
        middle = (full + GROUNDS[ground]) / 2
        part = np.clip((pixels - middle) @ (full - middle) / ((full - middle) ** 2).sum(), 0, 1)
        away[name] = np.linalg.norm(pixels - middle - part[:, None] * (full - middle), axis=1).sum()
    return min(away, key=away.get)


def test_a_row_says_what_its_picture_shows(table):
    pictures, masks, parts, depths = (png.decode(table[name].to_list()) for name in ("image", "mask", "part", "depth"))
    for row, picture, mask, part, depth in zip(table.rows(named=True), pictures, masks, parts, depths, strict=True):
        for index, thing in enumerate(row["objects"]):
            own = mask[..., 0] == index + 1
            y, x = np.nonzero(own)
            assert thing["box"] == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert abs(x.mean() + 0.5 - thing["x"]) < 1.2
            assert abs(y.mean() + 0.5 - thing["y"]) < 1.2
            assert max(np.hypot(x + 0.5 - thing["x"], y + 0.5 - thing["y"])) <= thing["radius"] + 0.71
            assert nearest_colour(picture[own].astype(float), row["background"]) == thing["colour"]
            assert (part[..., 0][own] == rendering.BODY).all()
            assert (depth[..., 0][own] == 255 - y.max() * 255 // 47).all()
            assert (thing["fill"], thing["mark_shape"], thing["mark_colour"]) == ("plain", "", "")
        boxes = rendering.glyph_boxes(row["sign"]["box"]) if row["sign"]["text"] else []
        assert len(boxes) == len(row["sign"]["text"])
        for position, (left, top, right, bottom) in enumerate(boxes):
            ink = picture[top:bottom, left:right].sum(2) < 380
            assert (ink == INK[GLYPHS.index(row["sign"]["text"][position])]).all()
            assert (ink == (part[top:bottom, left:right, 0] == rendering.INK + position)).all()
        assert mask.max() == (rendering.SIGN if row["sign"]["text"] else len(row["objects"]))


def test_captions_and_answers_are_true_of_the_record(table):
    varies = {"size": True, "background": True}
    for row in table.rows(named=True):
        row |= {"side": 48, "varies": varies}
        if len(row["objects"]) < 5:
            assert is_true(row, row["caption"])
        assert captions.parse(row["caption"], WORLDS["signs-48"]) is not None
        assert len(row["questions"]) == 8
        for asked in row["questions"]:
            assert answer(row, asked["question"]) == asked["answer"]


def test_the_world_stands_in_the_rows(table):
    assert shapes.world_of(table) == WORLDS["signs-48"]


def test_marks_and_fills_stand_in_the_record_and_questions_may_be_left_out(tmp_path):
    frame = made(tmp_path, world=DESCRIBED["marks-64"] | {"fills": ["dotted", "dark"]}, questions=None)
    things = frame["objects"].explode().struct.unnest()
    assert set(things["fill"]) == {"dotted", "dark"}
    assert set(things["mark_shape"]) == {"circle", "square", "triangle", "diamond"}
    assert (things["mark_colour"] != things["colour"]).all()
    assert (frame["questions"].list.len() == 0).all()
    assert (frame["texture"] == -1).all()


def test_more_scenes_begin_with_the_fewer_and_other_seeds_differ(table, tmp_path):
    more = made(tmp_path, scenes={"train": 1100})
    assert more[:300].equals(table.filter(split="train"))
    assert more["image"].n_unique() == 1100
    assert more["scene"].to_list() == list(range(1100))
    other = made(tmp_path, scenes={"train": 300}, seed=6)
    assert (other["image"] == more["image"][:300]).sum() == 0


def test_another_process_writes_the_same_bytes(tmp_path):
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = f"world={WORLD!r}, seed=1, scenes={{'test': 20}}, questions={QUESTIONS!r}"
        code = f"from pathlib import Path; from components.data import shapes; shapes.generate(Path('.'), {arguments})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / name)
        written.append((tmp_path / name / "shapes.parquet").read_bytes())
    assert written[0] == written[1]


def test_splits_share_no_scene(tmp_path):
    frame = made(tmp_path, scenes={"train": 300, "validation": 300, "test": 300, "combinations": 300})
    assert frame["image"].n_unique() == 1200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scenes": {"dev": 1}}, r"unknown split 'dev'"),
        ({"scenes": {"trian": 1}}, r"unknown split 'trian'. Did you mean 'train'\?"),
        ({"questions": {"types": ["exist"]}}, r"questions has \['types'\]; expected types \(a list\) and each"),
        ({"questions": {"types": ["exists"], "each": 1}}, r"unknown question type 'exists'. Did you mean 'exist'\?"),
        ({"world": {"side": 32}}, "world lacks objects, sizes"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, change, reason):
    with pytest.raises(ScenesError, match=reason):
        made(tmp_path, **change)


@pytest.mark.parametrize("name", SETS)
def test_declared_sets_have_the_schema_that_a_small_one_has(name, tmp_path):
    declared = DataSet.model_validate(DECLARED[name])
    (source,) = declared.sources
    counts = source.parameters["scenes"]
    shapes.generate(tmp_path, **(source.parameters | {"scenes": dict.fromkeys(counts, 3)}))
    frame = parquet.read(tmp_path / "shapes.parquet")
    assert dict(frame.schema) == parquet.schema(declared.tables["shapes.parquet"])
    assert declared.tables["shapes.parquet"].rows == sum(counts.values())
    assert declared.splits.names == list(counts) == frame["split"].unique(maintain_order=True).to_list()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_declared_sets_have_the_declared_content(name, tmp_path):
    declared = DataSet.model_validate(DECLARED[name])
    (source,) = declared.sources
    shapes.generate(tmp_path, **source.parameters)
    found = content_sha256(parquet.read(tmp_path / "shapes.parquet"))
    assert found == declared.editions[source.edition].content["shapes.parquet"]
