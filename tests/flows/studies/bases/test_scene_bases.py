"""The recipes of the bases that see and speak of scenes, on stand-ins small enough to train in a moment."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.multimodal.scene_table import read_scenes
from components.multimodal.vlm import answer, load_vlm
from components.multimodal.words import WordVocabulary
from components.training.determinism import reset
from flows.studies.bases import shapes_lm, shapes_lm_params, shapes_vit, shapes_vit_params, vlm, vlm_params
from flows.studies.context import StageContext
from flows.studies.multimodal import standin


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    found = {}
    for name in ("data/shapes-48", "bases/shapes-vit", "bases/shapes-lm"):
        (root / name).mkdir(parents=True)
        make = standin.make if name.startswith("data/") else standin.make_base
        make(name.partition("/")[2], root / name)
        found[name] = root / name
    return found


def run(recipe, params, inputs: dict[str, Path], output: Path, *names: str) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True, exist_ok=True)
    given = {name: inputs[name] for name in ("data/shapes-48", *names)}
    stage = StageContext(
        "base", "tiny", "", "", 0, "small", params, given, output / "run", output / "log", output / "checkpoint"
    )
    reset(0)
    recipe.train(stage)
    return stage


def metrics(directory: Path) -> dict[str, float]:
    frame = pl.read_parquet(directory / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    return dict(frame.iter_rows())


def tiny_encoder(**changes) -> shapes_vit_params.Params:
    sizes = {"width": 8, "layers": 2, "heads": 2, "text_layers": 1, "steps": 2, "batch_size": 4, "warmup_steps": 0}
    return shapes_vit_params.Params(**{**sizes, **changes})


def tiny_language(**changes) -> shapes_lm_params.Params:
    sizes = {"width": 8, "layers": 1, "heads": 2, "steps": 2, "batch_size": 4, "warmup_steps": 0}
    return shapes_lm_params.Params(**{**sizes, **changes})


def tiny_model(**changes) -> vlm_params.Params:
    sizes = {"merge": 2, "align_steps": 2, "steps": 2, "batch_size": 2, "warmup_steps": 0, "align_warmup_steps": 0}
    return vlm_params.Params(**{**sizes, **changes})


def test_an_encoder_is_trained_measured_and_described(inputs, tmp_path):
    stage = run(shapes_vit, tiny_encoder(), inputs, tmp_path)
    values = metrics(stage.output)
    assert {"caption_recall", "patch_colour_accuracy", "patch_shape_accuracy"} <= values.keys()
    assert all(0 <= value <= 1 for value in values.values())
    model = load_model(stage.output)
    scenes = read_scenes(inputs["data/shapes-48"], "test", 3, 4)
    assert model(scenes.pictures).shape == (3, 145, 8)
    assert 'load_base("tiny")' in (stage.output / "card.md").read_text()


def test_a_language_model_learns_what_follows_what(inputs, tmp_path):
    stage = run(shapes_lm, tiny_language(width=16, steps=60, learning_rate=1e-2), inputs, tmp_path)
    values = metrics(stage.output)
    assert values["nats_per_token"] < 0.7 * values["unigram_nats_per_token"]
    assert len(WordVocabulary.load(stage.output)) == load_model(stage.output).vocabulary_size


def test_a_model_is_trained_in_two_stages_and_answers(inputs, tmp_path):
    stage = run(vlm, tiny_model(), inputs, tmp_path, "bases/shapes-vit", "bases/shapes-lm")
    values = metrics(stage.output)
    assert {"general_accuracy", "read_accuracy", "blind_accuracy", "combinations_general_accuracy"} <= values.keys()
    series = set(pl.read_parquet(stage.output / "curves.parquet")["series"])
    assert {"align_answer_loss", "general_accuracy", "read_accuracy", "grounding_loss"} <= series
    seeing = load_vlm(stage.output, inputs["bases/shapes-vit"].parent)
    picture = read_scenes(inputs["data/shapes-48"], "test", 1, 4).pictures[0]
    word, probability = answer(seeing, picture, "how many objects are there?")
    assert word in seeing.model.words.tokens
    assert 0 < probability <= 1
    assert "no restart" in (stage.output / "card.md").read_text()


def test_the_encoder_stays_as_it_was_and_the_language_model_does_not(inputs, tmp_path):
    before = load_model(inputs["bases/shapes-lm"])
    stage = run(vlm, tiny_model(), inputs, tmp_path, "bases/shapes-vit", "bases/shapes-lm")
    model = load_model(stage.output)
    assert not any(name.startswith("encoder") for name, _ in model.named_parameters())
    assert not torch.equal(model.language.embedding.weight, before.embedding.weight)


def test_a_model_that_does_not_look_is_started_again(inputs, tmp_path, monkeypatch):
    looked = iter([False, True])
    monkeypatch.setattr(vlm, "_looks", lambda *_: next(looked))
    params = tiny_model(patience=1, attempts=3)
    stage = run(vlm, params, inputs, tmp_path, "bases/shapes-vit", "bases/shapes-lm")
    assert "1 restart from another initialisation" in (stage.output / "card.md").read_text()
    series = set(pl.read_parquet(stage.output / "curves.parquet")["series"])
    assert "attempt_1_general_accuracy" in series


@pytest.mark.parametrize(
    ("recipe", "params", "names"),
    [
        (shapes_vit, tiny_encoder(), ()),
        (shapes_lm, tiny_language(), ()),
        (vlm, tiny_model(), ("bases/shapes-vit", "bases/shapes-lm")),
    ],
)
def test_the_same_recipe_gives_the_same_bytes(inputs, tmp_path, recipe, params, names):
    stages = [run(recipe, params, inputs, tmp_path / name, *names) for name in ("one", "two")]
    for file in ("model.safetensors", "config.json", "metrics.parquet", "curves.parquet", "card.md"):
        assert (stages[0].output / file).read_bytes() == (stages[1].output / file).read_bytes()
