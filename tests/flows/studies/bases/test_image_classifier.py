"""The recipe of the image classifiers, on a stand-in that can be learned."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import load_model
from components.data.images import encode_png
from components.metrics.tables import write_parquet
from components.training.determinism import reset
from flows.declarations.workspace import Workspace
from flows.studies.bases.image_classifier import train
from flows.studies.bases.image_classifier_params import Params
from flows.studies.context import StageContext

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """Pictures whose class is their colour, in the schema of CIFAR-10."""
    directory = tmp_path_factory.mktemp("cifar10")
    generator = torch.Generator().manual_seed(0)
    for file, rows in (("train.parquet", 60), ("test.parquet", 30)):
        labels = np.arange(rows, dtype=np.int8) % 3
        images = []
        for label in labels:
            image = torch.randint(0, 80, (3, 32, 32), dtype=torch.uint8, generator=generator)
            image[int(label)] += 120
            images.append(encode_png(image))
        frame = pl.DataFrame({"image": images, "label": labels, "class": ["colour"] * rows, "file": ["a"] * rows})
        write_parquet(frame, directory / file)
    rule = {"by": "file", "files": {"train": "train.parquet", "test": "test.parquet"}}
    (directory / "meta.json").write_text(json.dumps({"name": "cifar10", "splits": rule}))
    return directory


def run(colours: Path, output: Path, design: str) -> StageContext:
    channels = {"residual": (4, 8), "plain": ((4,), (8,))}[design]
    params = Params(design=design, channels=channels, epochs=8, batch_size=20, learning_rate=2e-2)
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    stage = StageContext(
        "base", f"colour-{design}", "", "", 0, "small", params, {"data/cifar10": colours},
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip
    reset(0)
    train(stage)
    return stage


@pytest.mark.parametrize("design", ["residual", "plain"])
def test_a_classifier_learns_is_measured_and_described(colours, tmp_path, design):
    stage = run(colours, tmp_path, design)
    accuracy = pl.read_parquet(stage.output / "metrics.parquet").filter(pl.col("metric") == "test_accuracy")
    assert accuracy["value"].item() > 0.9
    assert accuracy["samples"].item() == 30
    model = load_model(stage.output)
    assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, 8)
    card = (stage.output / "card.md").read_text()
    assert f'load_base("{stage.paper}")' in card
    assert f"{100 * accuracy['value'].item():.2f}%" in card
    assert set(pl.read_parquet(stage.output / "curves.parquet")["series"]) >= {"loss", "train_accuracy"}


def test_the_same_recipe_gives_the_same_bytes(colours, tmp_path):
    first, second = (run(colours, tmp_path / name, "plain") for name in ("one", "two"))
    for file in ("model.safetensors", "config.json", "metrics.parquet", "curves.parquet", "card.md"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes()


def test_losses_and_metrics_use_networks_of_other_design_and_seed():
    bases = Workspace.load(ROOT).bases
    loss, metric = bases["cifar-clf-a"], bases["cifar-clf-b"]
    assert loss.seed != metric.seed
    assert loss.params["design"] != metric.params["design"]
    for base in (loss, metric):
        assert base.gates[0].metric == "test_accuracy"
        assert base.gates[0].above == 0.65
