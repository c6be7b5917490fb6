"""The recipe of the language models, on a stand-in whose lines can be learned."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.language.pretrained import load_language_model
from components.metrics.tables import write_parquet
from components.tokenizers.text.byte_level import to_symbols
from components.training.determinism import reset
from flows.studies.bases.language_model import train
from flows.studies.bases.language_model_params import Params
from flows.studies.context import StageContext

LINES = ["def add(first, second):\n", "    return first + second\n", "\n", "class Größe:\n", "    einheit = 'µm'\n"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("python-source")
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(LINES, size=120)) for _ in range(12)]
    frame = pl.DataFrame({"package": ["p"] * 12, "module": [f"p.m{i}" for i in range(12)], "text": texts})
    frame = frame.with_columns(split=pl.Series(["train"] * 9 + ["test"] * 3))
    write_parquet(frame, directory / "sources.parquet")
    meta = {
        "name": "python-source",
        "tables": {"sources.parquet": {"bytes": (directory / "sources.parquet").stat().st_size}},
        "splits": {"by": "column", "column": "split", "names": ["train", "test"]},
    }
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


def run(sources: Path, output: Path, **params) -> StageContext:
    settings = {"vocabulary_size": 280, "width": 16, "layers": 1, "heads": 2, "context": 128, "batch": 8, "steps": 80}
    settings |= {"learning_rate": 2e-2, "warmup_steps": 5, "loop_prompts": 4}
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    stage = StageContext(
        "base", "lm-toy", "", "", 0, "small", Params(**{**settings, **params}),
        {"data/python-source": sources}, output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip
    reset(0)
    train(stage)
    return stage


def test_a_model_learns_is_measured_described_and_read_back(sources, tmp_path):
    stage = run(sources, tmp_path)
    metrics = pl.read_parquet(stage.output / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    values = dict(metrics.select("metric", "value").iter_rows())
    assert values["nats_per_token"] < 0.8 * values["unigram_nats_per_token"]
    assert values["bits_per_byte"] == pytest.approx(
        values["nats_per_token"] / np.log(2) / values["bytes_per_token"], rel=1e-6
    )
    assert "# lm-toy" in (stage.output / "card.md").read_text()

    language = load_language_model(stage.output)
    assert language.specials == {"<eos>": 280}
    assert language.model.start_token == language.model.vocabulary_size == 281
    tokens = language.tokenizer.encode(to_symbols("class Größe"))
    rows = language.model.along(torch.tensor([tokens]))
    assert torch.allclose(rows.exp().sum(-1), torch.ones(1, len(tokens) + 1).double())


def test_fill_in_the_middle_brings_its_special_tokens(sources, tmp_path):
    stage = run(sources, tmp_path, psm=0.25, spm=0.25, steps=2)
    language = load_language_model(stage.output)
    assert language.specials == {"<eos>": 280, "<pre>": 281, "<suf>": 282, "<mid>": 283}
    assert "Fill in the middle" in (stage.output / "card.md").read_text()


def test_training_twice_gives_the_same_bytes(sources, tmp_path):
    first, second = (run(sources, tmp_path / name, steps=3, psm=0.5) for name in ("first", "second"))
    for file in ("model.safetensors", "tokenizer.json", "language.json", "metrics.parquet"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes()
