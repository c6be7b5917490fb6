"""The speech codec of the survey: equal conditions for every quantizer, and measurements with known answers."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.errors import TesseraError
from components.quantizers.additive import AdditiveQuantizer
from components.quantizers.fsq import FiniteScalarQuantizer
from components.quantizers.lfq import LookupFreeQuantizer
from components.quantizers.pq import build as product
from components.training import loop
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import StageContext
from flows.studies.image_tokenizer import standin
from flows.studies.image_tokenizer.discrete_tokenization_survey import speech
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import components

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("discrete-tokenization-survey")
VARIANT = PAPER.canonical
ARMS = [arm for arm in PAPER.arms if arm.startswith("speech_")]
TRAINED = [arm for arm in ARMS if PAPER.arms[arm].trains]
STORED = ("speech_vq_k256", "speech_rvq", "speech_pq", "speech_additive")
QUANTIZER_FIELDS = {
    "quantizer", "codebook_size", "code_dim", "codebooks", "restart_every", "start_blocks", "levels",
    "entropy_temperature",
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("fsdd")
    standin.make("fsdd", directory)
    return {"data/fsdd": directory}


def context(folder: Path, inputs: dict[str, Path], arm: str, kind: str = "train", **changes) -> StageContext:
    params = resolve(PAPER, VARIANT, arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        kind, PAPER.slug, VARIANT, arm, 0, "smoke", params, inputs,
        folder / "run", folder / "log", folder / "checkpoint",
    )  # fmt: skip


def run(folder: Path, inputs: dict[str, Path], arm: str, **changes) -> Path:
    """Train and evaluate one arm; return the evaluation's directory."""
    if PAPER.arms[arm].trains:
        stage = context(folder / "train", inputs, arm, **changes)
        reset(0)
        speech.train(stage)
        inputs = {**inputs, "train": stage.output}
    stage = context(folder / "evaluate", inputs, arm, "evaluate", **changes)
    speech.evaluate(stage)
    return stage.output


def test_arms_differ_in_their_quantizer_alone():
    described = [resolve(PAPER, VARIANT, arm, "small", "train").model_dump(exclude=QUANTIZER_FIELDS) for arm in TRAINED]
    assert all(one == described[0] for one in described)


def test_arms_that_are_compared_store_equally_many_codes_and_start_alike():
    for arm in STORED:
        params = resolve(PAPER, VARIANT, arm, "small", "train")
        assert params.codebook_size * params.codebooks == 256
        assert (params.restart_every, params.start_blocks) == (20, 16_384)


def test_every_arm_starts_from_the_same_networks_and_sees_the_same_blocks(inputs, tmp_path, monkeypatch):
    seen = {}

    def watch(model, draw_batch, *arguments, **options):
        batch = draw_batch(0, torch.Generator().manual_seed(5))[0]
        networks = {name: value.clone() for name, value in model.state_dict().items() if "quantizer" not in name}
        seen[len(seen)] = (batch, networks)
        return loop.fit(model, draw_batch, *arguments, **options)

    monkeypatch.setattr(speech, "fit", watch)
    for arm in ("speech_vq_k256", "speech_lfq", "speech_continuous"):
        stage = context(tmp_path / arm, inputs, arm)
        reset(0)
        speech.train(stage)
    for batch, networks in seen.values():
        assert torch.equal(batch, seen[0][0])
        assert networks.keys() == seen[0][1].keys()
        assert all(torch.equal(value, seen[0][1][name]) for name, value in networks.items())


def test_the_mean_frame_is_that_of_the_training_recordings(inputs, tmp_path):
    folder = run(tmp_path, inputs, "speech_mean_frame")
    stage = context(tmp_path / "again", inputs, "speech_mean_frame", "evaluate")
    learned = speech.recordings(stage, "train", stage.params.train_recordings)
    test = speech.recordings(stage, "test", stage.params.test_recordings)
    assert not {name for name, _ in learned} & {name for name, _ in test}
    mean = torch.cat([blocks for _, blocks in learned]).flatten(0, 1).mean(0)
    table = pl.read_parquet(folder / "metrics.parquet").filter(pl.col("metric") == "lsd")
    assert table["sample"].to_list() == [name for name, _ in test]
    for value, (_, blocks) in zip(table["value"], test, strict=True):
        frames = blocks.flatten(0, 1).double()
        expected = (frames - mean.double()).square().mean(1).sqrt().mean()
        assert value == pytest.approx(float(expected), rel=1e-4)


def test_decoded_spectra_and_distances_are_those_of_the_saved_codec(inputs, tmp_path):
    folder = run(tmp_path, inputs, "speech_rvq")
    model = load_model(tmp_path / "train" / "run")
    stage = context(tmp_path / "again", inputs, "speech_rvq", "evaluate")
    name, blocks = speech.recordings(stage, "test", stage.params.test_recordings)[0]
    with torch.no_grad():
        decoded = model.decode(model.encode(blocks)).flatten(0, 1)
    spectra = pl.read_parquet(folder / "spectra.parquet").filter(
        pl.col("kind") == "decoded", pl.col("recording") == name
    )
    torch.testing.assert_close(torch.tensor(spectra["bands"].to_list()), decoded)
    table = pl.read_parquet(folder / "metrics.parquet")
    first = table.filter(pl.col("metric") == "lsd", pl.col("sample") == name)["value"].item()
    distance = (decoded - blocks.flatten(0, 1)).square().mean(1).sqrt().mean()
    assert first == pytest.approx(float(distance), rel=1e-4)
    errors = {row["at"]: row["value"] for row in table.filter(pl.col("metric") == "latent_error").to_dicts()}
    assert errors["search=joint"] <= errors["search=greedy"]


def test_joint_codes_of_the_same_books_are_never_farther_away_and_errors_are_squared_distances():
    torch.manual_seed(0)
    quantizer = AdditiveQuantizer(6, 4, codebooks=3).eval()
    vectors = torch.randn(50, 4)
    with torch.no_grad():
        errors = speech.latent_errors(quantizer, vectors, 8)
    assert errors["joint"] < errors["greedy"]
    residual = vectors
    for codebook in quantizer.codebooks:
        residual = residual - codebook.lookup(codebook.nearest(residual))
    assert errors["greedy"] == pytest.approx(float(residual.square().sum(1).mean()), rel=1e-5)


def test_large_products_are_told_by_dimension():
    vectors = torch.randn(30, 24)
    signs = LookupFreeQuantizer(24)
    columns, sizes = speech.index_columns(signs, signs(vectors).indices)
    assert sizes == (2,) * 24
    assert torch.equal(columns.bool(), vectors > 0)
    levels = FiniteScalarQuantizer([8] * 8)
    columns, sizes = speech.index_columns(levels, levels(vectors[:, :8]).indices)
    assert (columns.shape, sizes) == ((30, 8), (8,) * 8)
    parts = product(4, 8, codebooks=2)
    columns, sizes = speech.index_columns(parts, parts(vectors[:, :8]).indices)
    assert (columns.shape, sizes) == ((30, 2), (4, 4))


def test_recordings_are_spread_over_the_split_and_missing_data_is_named(inputs, tmp_path):
    stage = context(tmp_path, inputs, "speech_vq_k256", train_recordings=4)
    every = speech.recordings(stage, "train", 100)
    assert [name for name, _ in speech.recordings(stage, "train", 4)] == [name for name, _ in every[::2]]
    with pytest.raises(TesseraError, match="reads data set 'fsdd'"):
        speech.recordings(context(tmp_path, {}, "speech_vq_k256"), "train", 4)


def test_an_arm_is_made_of_its_own_quantizer_and_the_codec():
    modules = components(resolve(PAPER, VARIANT, "speech_pq", "small", "train"), "train")
    assert "components.quantizers.pq" in modules
    assert "components.tokenizers.audio.mel_blocks" in modules
    assert not any("image" in module.split(".")[-1] for module in modules)
    control = components(resolve(PAPER, VARIANT, "speech_mean_frame", "small", "evaluate"), "evaluate")
    assert not any(module.startswith("components") for module in control)
