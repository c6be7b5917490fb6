"""`tessera ask`: the model's own answer, the scene as a picture, and what is said when a question cannot be put."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner
from workspace import REPOSITORY

from components.bases import load_model
from components.data import tables
from components.data.images import decode_images
from components.multimodal.vlm import features_of, text_batch
from flows import cli
from flows.asking import AskingError, ask
from flows.declarations.workspace import UnknownBase
from flows.studies.multimodal import standin

BASES = ("vlm-base", "vlm-lite", "shapes-vit", "shapes-lm")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A workspace with the declarations of this one, and stand-ins of what is asked."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / "dvc.yaml").write_text("stages: {}\n")
    for name in BASES:
        (root / "bases" / name).mkdir(parents=True)
        standin.make_base(name, root / "bases" / name)
    (root / "data" / "shapes-48").mkdir(parents=True)
    standin.make("shapes-48", root / "data" / "shapes-48")
    return root


def scenes(root: Path) -> pl.DataFrame:
    return tables.read_split(root / "data" / "shapes-48", "test")


@pytest.mark.parametrize("base", ["vlm-base", "vlm-lite"])
@torch.no_grad()
def test_the_answer_is_the_models_for_that_scene_and_question(root, base):
    model = load_model(root / "bases" / base)
    encoder = load_model(root / "bases" / "shapes-vit").encoder
    for number in (0, 5):
        row = scenes(root).row(number, named=True)
        question = row["questions"][0]["question"]
        visual = model.visual(features_of(encoder, decode_images([row["image"]])))
        probabilities = model(visual, text_batch(model.words, question))[0].softmax(-1)
        asked = ask(root, base, number, question)
        assert asked.answer == model.words.tokens[int(probabilities.argmax())]
        assert asked.probability == pytest.approx(float(probabilities.max()), rel=1e-4)
        assert asked.caption == row["caption"]
        assert asked.known == row["questions"][0]["answer"]


def test_the_picture_is_the_scene_eight_times_as_large(root, tmp_path):
    asked = ask(root, "vlm-base", 2, "how many objects are there?", tmp_path / "scene.png")
    assert asked.picture == tmp_path / "scene.png"
    (large,) = decode_images([asked.picture.read_bytes()])
    (scene,) = decode_images([scenes(root)["image"][2]])
    assert large.shape == (3, 384, 384)
    assert torch.equal(large[:, 3::8, 3::8], scene)
    assert torch.equal(large[:, 0::8, 7::8], scene)


def test_the_command_prints_question_answer_caption_and_picture(root, monkeypatch):
    monkeypatch.chdir(root)
    question = "is there a red circle?"
    done = CliRunner().invoke(cli.app, ["ask", "vlm-base", "--scene", "1", question])
    assert done.exit_code == 0, done.output
    lines = dict(line.split(":", 1) for line in done.output.splitlines())
    assert lines["question"].strip() == question
    assert "probability" in lines["answer"]
    assert lines["caption"].strip() == scenes(root)["caption"][1]
    assert (root / lines["picture"].strip()).is_file()


@pytest.mark.parametrize(
    ("base", "scene", "question", "said"),
    [
        ("vlm-basis", 0, "is it?", "Did you mean 'vlm-base'"),
        ("cifar-clf-a", 0, "is it?", "is no vision-language model; expected one of vlm-base"),
        ("vlm-base-s1", 0, "is it?", "make it with: tessera rebuild-base vlm-base-s1"),
        ("vlm-base", 12, "is it?", "has the scenes 0 to 11"),
        ("vlm-base", -1, "is it?", "has the scenes 0 to 11"),
        ("vlm-base", 0, "how many unicorns are there?", "'unicorns'.*knows only the words.*Ask for example: .+?"),
        ("vlm-base", 0, "  ", "the question is empty. Ask for example"),
    ],
)
def test_a_question_that_cannot_be_put_says_what_to_do(root, base, scene, question, said):
    with pytest.raises((AskingError, UnknownBase), match=said):
        ask(root, base, scene, question)


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_computed(root, tmp_path):
    for wrong in (tmp_path / "scene.jpg", tmp_path / "nowhere" / "scene.png", tmp_path):
        with pytest.raises(AskingError, match=r"ends in \.png, in a folder that exists"):
            ask(root, "vlm-base", 0, "is there a red circle?", wrong)
    assert list(tmp_path.iterdir()) == []


def test_data_and_bases_that_were_not_made_are_named_with_the_command_that_makes_them(root, tmp_path):
    shutil.copytree(root, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "data")
    with pytest.raises(AskingError, match="dvc repro data-shapes-48"):
        ask(tmp_path / "other", "vlm-base", 0, "is it?")
    shutil.rmtree(tmp_path / "other" / "bases" / "shapes-vit")
    with pytest.raises(AskingError, match="bases/shapes-vit has not been made"):
        ask(tmp_path / "other", "vlm-base", 0, "is it?")
