"""The recipe of the small vision transformers, on a stand-in that can be learned."""

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
from flows.studies.bases.cifar_vit import train
from flows.studies.bases.cifar_vit_params import Params
from flows.studies.context import StageContext

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """Pictures whose class is their colour, in the schema of CIFAR-10."""
    directory = tmp_path_factory.mktemp("cifar10")
    generator = torch.Generator().manual_seed(0)
    for file, rows in (("train.parquet", 45), ("test.parquet", 30)):
        labels = np.arange(rows, dtype=np.int8) % 3
        images = torch.randint(0, 80, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)
        images[torch.arange(rows), torch.from_numpy(labels).long()] += 120
        columns = {"image": [encode_png(image) for image in images], "label": labels}
        write_parquet(pl.DataFrame(columns), directory / file)
    rule = {"by": "file", "files": {"train": "train.parquet", "test": "test.parquet"}}
    (directory / "meta.json").write_text(json.dumps({"name": "cifar10", "splits": rule}))
    return directory


def run(colours: Path, output: Path, seed: int = 0, **changes) -> StageContext:
    sizes = {"channels": (4, 6, 8), "width": 8, "layers": 1, "heads": 2, "steps": 2, "batch_size": 8, "warmup_steps": 2}
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    stage = StageContext(
        "base", "tiny-vit", "", "", seed, "small", Params(**{**sizes, **changes}), {"data/cifar10": colours},
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip
    reset(seed)
    train(stage)
    return stage


def test_a_network_learns_is_measured_and_described(colours, tmp_path):
    stage = run(colours, tmp_path, steps=40, learning_rate=2e-2)
    accuracy = pl.read_parquet(stage.output / "metrics.parquet").filter(pl.col("metric") == "test_accuracy")
    assert accuracy["value"].item() > 0.9
    assert accuracy["samples"].item() == 30
    model = load_model(stage.output)
    assert model.tokens(torch.rand(2, 3, 32, 32)).shape == (2, 65, 8)
    card = (stage.output / "card.md").read_text()
    assert 'load_base("tiny-vit")' in card
    assert f"{100 * accuracy['value'].item():.2f}%" in card


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_another_network(colours, tmp_path):
    first, second, other = (run(colours, tmp_path / str(number), seed) for number, seed in enumerate((0, 0, 1)))
    for file in ("model.safetensors", "config.json", "metrics.parquet", "curves.parquet", "card.md"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes()
    assert (first.output / "model.safetensors").read_bytes() != (other.output / "model.safetensors").read_bytes()


def test_the_shared_networks_are_gated_and_differ_in_their_seed():
    bases = Workspace.load(ROOT).bases
    found = [bases[name] for name in ("cifar-vit", "cifar-vit-s1", "cifar-vit-s2")]
    assert [base.seed for base in found] == [0, 1, 2]
    assert all((base.gates[0].metric, base.gates[0].above) == ("test_accuracy", 0.55) for base in found)
    # Five passes through the 50,000 training images.
    assert Params().steps * Params().batch_size == pytest.approx(5 * 50_000, rel=0.01)
