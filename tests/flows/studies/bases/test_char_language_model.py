"""The recipe of the judge of characters, on a stand-in text that can be learned."""

import polars as pl
import pytest
import torch

from components.language.pretrained import load_language_model
from components.training.determinism import reset
from flows.studies.bases.char_language_model import train
from flows.studies.bases.char_language_model_params import Params
from flows.studies.context import StageContext
from flows.studies.decoding import standin


def run(root, **params) -> StageContext:
    data = root / "tinyshakespeare"
    for directory in (data, root / "run", root / "log", root / "checkpoint"):
        directory.mkdir(parents=True)
    standin.make("tinyshakespeare", data)
    settings = {"width": 16, "layers": 1, "heads": 2, "context": 24, "steps": 150, "learning_rate": 1e-2} | params
    stage = StageContext(
        "base", "judge-toy", "", "", 0, "small", Params(**settings), {"data/tinyshakespeare": data},
        root / "run", root / "log", root / "checkpoint",
    )  # fmt: skip
    reset(0)
    train(stage)
    return stage


def test_a_judge_learns_is_measured_on_what_is_held_out_and_reads_every_character(tmp_path):
    stage = run(tmp_path)
    metrics = pl.read_parquet(stage.output / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    values = dict(metrics.select("metric", "value").iter_rows())
    assert values["nats_per_token"] < 0.8 * values["unigram_nats_per_token"]
    margin = values["bigram_nats_per_token"] - values["nats_per_token"]
    assert values["below_bigram"] == pytest.approx(margin, rel=1e-9)
    text = "".join(pl.read_parquet(stage.inputs["data/tinyshakespeare"] / "text.parquet")["text"])
    judge = load_language_model(stage.output)
    assert list(judge.tokenizer.vocabulary) == sorted(set(text))
    assert judge.tokenizer.decode(judge.tokenizer.encode(text)) == text
    rows = judge.model.along(torch.tensor([judge.tokenizer.encode(text[:10])]))
    assert torch.allclose(rows.exp().sum(-1), torch.ones(1, 11).double())
    assert "# judge-toy" in (stage.output / "card.md").read_text()


def test_training_twice_gives_the_same_bytes(tmp_path):
    first, second = (run(tmp_path / name, steps=3) for name in ("first", "second"))
    for file in ("model.safetensors", "tokenizer.json", "language.json", "metrics.parquet"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes()
