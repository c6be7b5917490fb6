"""The recipe of the translation bases, on a stand-in that can be learned."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.training.determinism import reset
from flows.studies.bases.translation_diffusion import train
from flows.studies.bases.translation_diffusion_params import Params, components
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion import models, standin


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("multi30k")
    standin.make("multi30k", directory)
    return directory


def run(sentences: Path, output: Path, **params) -> StageContext:
    settings = {"vocabulary_size": 60, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}
    settings |= {"feed_forward": 32, "batch": 8, "steps": 3, "warmup_steps": 1, "test_sentences": 6, "decode_steps": 2}
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    stage = StageContext(
        "base", "mt-toy", "", "", 0, "small", Params(**{**settings, **params}), {"data/multi30k": sentences},
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip
    reset(0)
    train(stage)
    return stage


def test_a_base_is_measured_described_and_read_back(sentences, tmp_path):
    stage = run(sentences, tmp_path)
    metrics = pl.read_parquet(stage.output / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    values = dict(metrics.rows())
    assert values["above_wrong_source"] == pytest.approx(values["bleu"] - values["bleu_wrong_source"])
    assert 0 <= values["chrf"] <= 100
    assert "# mt-toy" in (stage.output / "card.md").read_text()
    decodable = models.load_translator(stage.output, sentences, "cpu")
    assert decodable.task.words == decodable.model.words
    examples = decodable.task.examples("test", 3)
    again = load_model(stage.output)
    with torch.no_grad():
        assert torch.equal(decodable.model(*examples.items), again(*examples.items))


def test_training_twice_gives_the_same_bytes(sentences, tmp_path):
    first, second = (run(sentences, tmp_path / name) for name in ("first", "second"))
    for file in ("model.safetensors", "tokenizer.json", "config.json", "metrics.parquet", "curves.parquet"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes(), file


def test_bases_of_further_seeds_have_names_of_their_own():
    assert [models.base_name("mt", seed) for seed in range(3)] == ["mt", "mt-s1", "mt-s2"]
    assert components(Params(), "base") == ("components.diffusion.sequence_denoiser",)
