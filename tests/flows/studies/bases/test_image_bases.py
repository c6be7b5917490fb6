"""The recipes of the image bases, on stand-ins small enough to train in a moment."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.data.images import encode_png
from components.data.pixels import to_unit
from components.metrics.tables import write_parquet
from components.training.determinism import reset
from flows.studies.bases import grid_tokenizer, grid_tokenizer_params, kl_autoencoder, kl_autoencoder_params
from flows.studies.bases.pictures import PictureError, pictures
from flows.studies.context import StageContext
from flows.studies.image_tokenizer import standin


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """Stand-ins of CIFAR-10, photographs and the classifier of the perceptual term."""
    root = tmp_path_factory.mktemp("inputs")
    for name in ("cifar10", "photos"):
        (root / name).mkdir()
        standin.make(name, root / name)
    (root / "cifar-clf-a").mkdir()
    standin.make_base("cifar-clf-a", root / "cifar-clf-a")
    return {f"data/{name}": root / name for name in ("cifar10", "photos")} | {"bases/cifar-clf-a": root / "cifar-clf-a"}


def stage(inputs: dict[str, Path], output: Path, params, data: str = "cifar10") -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    given = {name: path for name, path in inputs.items() if name.startswith("bases/") or name == f"data/{data}"}
    reset(0)
    return StageContext(
        "base", "tiny-pictures", "", "", 0, "small", params, given,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip


def tiny_grid(**changes) -> grid_tokenizer_params.Params:
    sizes = {"channels": (4, 8), "codebook_size": 8, "code_dim": 4, "steps": 4, "batch_size": 4, "start_images": 8}
    return grid_tokenizer_params.Params(**{**sizes, **changes})


def metrics(directory: Path) -> dict[str, float]:
    frame = pl.read_parquet(directory / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    return dict(frame.iter_rows())


@pytest.mark.parametrize("data", ["cifar10", "photos"])
def test_a_tokenizer_is_trained_measured_and_described(inputs, tmp_path, data):
    given = stage(inputs, tmp_path, tiny_grid(), data)
    grid_tokenizer.train(given)
    values = metrics(given.output)
    assert values["psnr_above_cell_means"] == pytest.approx(values["psnr"] - values["psnr_of_cell_means"])
    assert 0 < values["codebook_usage"] <= 1
    model = load_model(given.output)
    images = pictures(given, "test", 32, 3)
    tokens = model.encode(images)
    assert tokens.shape == (3, 64)
    assert model.decode(tokens).shape == (3, 3, 32, 32)
    card = (given.output / "card.md").read_text()
    assert 'load_base("tiny-pictures")' in card
    assert f"{values['psnr']:.2f} dB PSNR" in card


def test_a_tokenizer_learns(tmp_path):
    (tmp_path / "smooth").mkdir()
    corners = torch.rand(24, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(corners, (32, 32), mode="bilinear", align_corners=True)
    columns = {"image": [encode_png(image) for image in smooth.mul(255).to(torch.uint8)], "label": [0] * 24}
    for file in ("train.parquet", "test.parquet"):
        write_parquet(pl.DataFrame(columns), tmp_path / "smooth" / file)
    rule = {"by": "file", "files": {"train": "train.parquet", "test": "test.parquet"}}
    (tmp_path / "smooth" / "meta.json").write_text(json.dumps({"name": "cifar10", "splits": rule}))
    reached = {}
    for steps in (1, 150):
        params = tiny_grid(channels=(8, 16, 32), codebook_size=32, code_dim=8, steps=steps)
        given = stage({"data/cifar10": tmp_path / "smooth"}, tmp_path / str(steps), params)
        grid_tokenizer.train(given)
        reached[steps] = metrics(given.output)["psnr"]
    assert reached[150] > reached[1] + 3


def test_the_same_recipe_gives_the_same_bytes(inputs, tmp_path):
    first, second = (stage(inputs, tmp_path / name, tiny_grid()) for name in ("one", "two"))
    for each in (first, second):
        reset(0)
        grid_tokenizer.train(each)
    for file in ("model.safetensors", "config.json", "metrics.parquet", "curves.parquet", "card.md"):
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes()


def test_an_autoencoder_has_latents_of_one_deviation_and_no_mean(inputs, tmp_path):
    params = kl_autoencoder_params.Params(channels=(4, 8), latent_dim=3, steps=4, batch_size=4)
    given = stage(inputs, tmp_path, params)
    kl_autoencoder.train(given)
    model = load_model(given.output)
    with torch.no_grad():
        latents = model.latents(pictures(given, "train", 32, 24)).double()
    assert latents.shape == (24, 64, 3)
    torch.testing.assert_close(latents.mean((0, 1)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    assert float(latents.square().mean().sqrt()) == pytest.approx(1, abs=1e-5)
    values = metrics(given.output)
    assert values["deviation_spread"] >= 1
    assert f"{values['psnr']:.2f} dB PSNR" in (given.output / "card.md").read_text()


def test_images_of_another_side_or_no_data_set_are_refused(inputs, tmp_path):
    given = stage(inputs, tmp_path, tiny_grid())
    with pytest.raises(PictureError, match="32 x 32 pixels, image_side is 64"):
        pictures(given, "train", 64, 2)
    with pytest.raises(PictureError, match="expected one data set"):
        pictures(stage({}, tmp_path / "none", tiny_grid()), "train", 32, 2)


def test_photographs_are_cut_into_whole_tiles(inputs, tmp_path):
    given = stage(inputs, tmp_path, tiny_grid(), "photos")
    tiles = pictures(given, "test", 32, 10_000)
    assert tiles.shape[1:] == (3, 32, 32)
    assert len(tiles) % 6 == 0
    assert 0 <= float(to_unit(tiles).min()) < float(to_unit(tiles).max()) <= 1
