"""The image part of the survey: equal conditions for every quantizer, and measurements with known answers."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import construct, load_model
from components.compression import range_coding
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.metrics.tables import MetricTable, condition
from components.quantizers.fsq import FiniteScalarQuantizer
from components.quantizers.lfq import LookupFreeQuantizer
from components.quantizers.rvq import ResidualQuantizer
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.studies.context import JudgeContext, StageContext
from flows.studies.image_tokenizer import sources, standin
from flows.studies.image_tokenizer.discrete_tokenization_survey import codec, codes, controls, images, judge, priors
from flows.studies.image_tokenizer.discrete_tokenization_survey.families import family
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import EvaluateParams, TrainParams, components

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("discrete-tokenization-survey")
VARIANT = PAPER.canonical
IMAGE_ARMS = [arm for arm in PAPER.arms if resolve(PAPER, VARIANT, arm, "small", "train").task == "image"]
TRAINED = [arm for arm in IMAGE_ARMS if PAPER.arms[arm].trains]
CODED = [arm for arm in TRAINED if arm != "continuous"]
QUANTIZER_FIELDS = {
    "quantizer", "codebook_size", "code_dim", "codebooks", "restart_every", "start_images", "levels", "base", "groups",
    "entropy_temperature",
}  # fmt: skip


def small(arm: str) -> TrainParams:
    return resolve(PAPER, VARIANT, arm, "small", "train")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    for name in ("cifar10", "cifar-clf-b"):
        (root / name).mkdir()
    standin.make("cifar10", root / "cifar10")
    standin.make_base("cifar-clf-b", root / "cifar-clf-b")
    return {"data/cifar10": root / "cifar10", "bases/cifar-clf-b": root / "cifar-clf-b"}


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
    owner = PAPER.model_of(arm)
    if owner:
        stage = context(folder / "train", inputs, owner, **changes)
        reset(0)
        codec.train(stage)
        inputs = {**inputs, "train": stage.output}
    stage = context(folder / "evaluate", inputs, arm, "evaluate", **changes)
    reset(0)
    images.evaluate(stage)
    return stage.output


def metrics(directory: Path) -> pl.DataFrame:
    return pl.read_parquet(directory / "metrics.parquet")


def test_arms_differ_in_their_quantizer_and_in_the_length_of_the_collapse_runs_alone():
    plain = {
        small(arm).model_copy(update={name: None for name in QUANTIZER_FIELDS})
        for arm in TRAINED
        if not arm.endswith("_long") and arm != "rvq_progressive"
    }
    assert len(plain) == 1
    long = {name: None for name in QUANTIZER_FIELDS}
    assert len({small(arm).model_copy(update=long) for arm in TRAINED if arm.endswith("_long")}) == 1
    assert small("vq_long").steps * small("vq_long").snapshots[0] == 250
    assert small("vq_long").steps * small("vq_long").snapshots[1] == 1_000
    assert small("vq_long").final_fraction == 1


@pytest.mark.parametrize("arm", CODED)
def test_nominal_bits_are_those_of_the_arms_rate_and_width_outside_is_equal(arm):
    quantizer = construct(codec.codec_description(small(arm))["arguments"]["quantizer"])
    rates = {"vq_k256": 8, "vq_1024": 10}
    expected = rates.get(
        arm, 24 if arm.endswith("_24") or arm == "rvq_progressive" else 8 if arm.endswith("_8") else 12
    )
    assert quantizer.bits_per_vector == expected
    assert quantizer.code_dim == small(arm).latent_dim == 16


def test_structured_codes_store_as_many_vectors_as_the_flat_codebook():
    for arm in ("rvq_24", "pq_24", "additive_24"):
        assert small(arm).codebooks * small(arm).codebook_size == small("vq_k256").codebook_size == 256
        assert (small(arm).restart_every, small(arm).start_images) == (20, 256)
    assert (small("vq_k256").restart_every, small("vq_k256").start_images) == (20, 256)
    assert (small("vq").restart_every, small("vq").start_images) == (0, 0)


def test_every_arm_of_a_seed_starts_from_the_same_encoder_and_decoder():
    states = []
    for position, arm in enumerate(("vq_8", "fsq", "rvq_24", "continuous")):
        torch.manual_seed(position)
        model = construct(codec.codec_description(small(arm)))
        codec.share_start(model, small(arm), 7)
        states.append({**model.encoder.state_dict(), **{f"d.{k}": v for k, v in model.decoder.state_dict().items()}})
    for other in states[1:]:
        for name, tensor in states[0].items():
            assert torch.equal(tensor, other[name]), name
    codec.share_start(model, small("continuous"), 8)
    assert not torch.equal(next(model.encoder.parameters()), next(iter(states[0].values())))


LONG = {"steps": 8, "snapshots": (0.25,), "codebook_size": 8}


def train_long(folder: Path, inputs: dict[str, Path]) -> dict[str, bytes]:
    stage = context(folder, inputs, "vq_restart_long", **LONG)
    reset(0)
    codec.train(stage)
    paths = [path for path in stage.output.rglob("*") if path.is_file()]
    return {str(path.relative_to(stage.output)): path.read_bytes() for path in paths}


def resumed(folder: Path, inputs: dict[str, Path], monkeypatch) -> dict[str, bytes]:
    """Train once until a kill in step 5, behind the snapshot after step 2, and once more."""
    original, killed = codec.fit, []

    def frequent(model, draw_batch, *arguments, **options):
        def draw(step, generator):
            if step == 5 and not killed:
                killed.append(step)
                raise KeyboardInterrupt
            return draw_batch(step, generator)

        return original(model, draw, *arguments, **{**options, "log_every": 1, "checkpoint_seconds": 0})

    monkeypatch.setattr(codec, "fit", frequent)
    with pytest.raises(KeyboardInterrupt):
        train_long(folder, inputs)
    return train_long(folder, inputs)


def test_a_training_gives_the_same_bytes_twice(inputs, tmp_path):
    first, second = (train_long(tmp_path / name, inputs) for name in ("one", "two"))
    assert first == second
    assert set(first) == {
        "config.json", "model.safetensors", "curves.parquet", "step-2/config.json", "step-2/model.safetensors",
    }  # fmt: skip
    assert first["model.safetensors"] != first["step-2/model.safetensors"]


def test_a_snapshot_outlives_a_kill_behind_it(inputs, tmp_path, monkeypatch):
    first = train_long(tmp_path / "one", inputs)
    second = resumed(tmp_path / "two", inputs, monkeypatch)
    assert second["step-2/model.safetensors"] == first["step-2/model.safetensors"]


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(inputs, tmp_path, monkeypatch):
    first = train_long(tmp_path / "one", inputs)
    second = resumed(tmp_path / "two", inputs, monkeypatch)
    assert second["model.safetensors"] == first["model.safetensors"]


def test_the_arriving_gradient_is_logged_in_every_training(inputs, tmp_path):
    stage = context(tmp_path, inputs, "fsq")
    reset(0)
    codec.train(stage)
    curves = pl.read_parquet(stage.output / "curves.parquet")
    assert curves.filter(pl.col("series") == "encoder_gradient")["value"].min() > 0


def test_implicit_codes_are_counted_by_dimension_and_flat_ones_as_they_are():
    indices = torch.tensor([[[0, 1], [1, 0]]])
    columns, sizes = codes.index_columns(ResidualQuantizer(4, 3, codebooks=2), indices)
    assert (columns.tolist(), sizes) == ([[0, 1], [1, 0]], (4, 4))
    fsq = FiniteScalarQuantizer([3, 5])
    columns, sizes = codes.index_columns(fsq, torch.arange(15).view(3, 5))
    assert sizes == (3, 5)
    assert columns.tolist() == [[index % 3, index // 3] for index in range(15)]
    symbols, size = codes.joint_symbols(columns, sizes)
    assert (symbols.tolist(), size) == (list(range(15)), 15)
    lfq = LookupFreeQuantizer(24)
    columns, sizes = codes.index_columns(lfq, torch.tensor([[0, (1 << 24) - 1]]))
    assert sizes == (2,) * 24
    assert codes.joint_symbols(columns, sizes) is None


def test_usage_perplexity_and_bits_of_codes_that_are_known():
    table = MetricTable()
    quantizer = ResidualQuantizer(4, 2, codebooks=2)
    # Every pair of two codes of four in each book, equally often: a quarter of 16 pairs.
    pairs = torch.tensor(list(itertools.product((0, 3), (1, 2)))).repeat(1_000, 1)
    codes.code_metrics(table, quantizer, pairs.view(50, 80, 2))
    found = dict(table.frame().select("metric", "value").rows())
    assert found["codebook_usage"] == pytest.approx(4 / 16)
    assert found["codebook_perplexity"] == pytest.approx(4)
    assert found["normalised_perplexity"] == pytest.approx(4 / 16)
    assert found["index_usage"] == pytest.approx(0.5)
    assert found["index_perplexity"] == pytest.approx(0.5)
    assert found["nominal_bits"] == 4
    assert found["entropy_bits"] == pytest.approx(2)
    assert 2 <= found["real_bits"] < 2.1


def test_a_stream_that_does_not_give_its_codes_back_is_refused(monkeypatch):
    monkeypatch.setattr(range_coding, "decode", lambda *arguments: np.zeros((8, 1), dtype=np.int64))
    with pytest.raises(codes.LossyStream, match="do not survive"):
        codes.stream(torch.arange(8).view(8, 1), (8,), 2)


def test_controls_are_the_mean_colour_of_cells_and_the_nearest_patches(inputs, tmp_path):
    stage = context(tmp_path, inputs, "mean_colour", "evaluate")
    test = sources.test_images(stage, 4).images
    shown = controls.decoded(stage, MetricTable(), test)
    for row, column in ((0, 0), (4, 28), (16, 8)):
        cell = test[2, :, row : row + 4, column : column + 4].float()
        expected = cell.mean((1, 2)).round()
        assert (shown[2, :, row : row + 4, column : column + 4].float() - expected[:, None, None]).abs().max() <= 1
    # With a centre for every patch of the only training image, that image comes back as it is.
    stage = context(tmp_path, inputs, "patch_kmeans", "evaluate", control_codes=64, train_images=1, statistics_images=1)
    learned = sources.training_images(stage)
    table = MetricTable()
    assert torch.equal(controls.decoded(stage, table, learned), learned)
    assert dict(table.frame().select("metric", "value").rows())["nominal_bits"] == 6


def test_bits_under_the_prior_are_the_models_own_and_a_constant_token_costs_little(inputs, tmp_path):
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(vocabulary_size=5, context=6, width=8, layers=1, heads=1)).eval()
    tokens = torch.randint(5, (4, 6))
    bits = priors._bits(model, tokens)
    assert float(bits.mean()) == pytest.approx(float(model.loss(tokens).detach()) * 6 / math.log(2), rel=1e-5)
    stage = context(
        tmp_path, inputs, "prior_fsq", "evaluate", prior_steps=150, prior_learning_rate=0.02, warmup_steps=5
    )
    constant = torch.full((6, 6), 3)
    assert float(priors._causal_bits(stage, constant, constant, 5).mean()) < 1


def test_post_training_levels_give_back_what_they_name_and_finer_ones_are_nearer(inputs, tmp_path):
    stage = context(tmp_path, inputs, "continuous")
    reset(0)
    codec.train(stage)
    model = load_model(stage.output)
    test = sources.test_images(stage, 6).images
    with torch.no_grad():
        latents = model.latents(test)
        direct = model.decode_values(latents)
        errors = []
        for levels in (2, 8, 256):
            params = resolve(PAPER, VARIANT, "dimension_wise_2", "smoke", "evaluate")
            params = params.model_copy(update={"levels_per_dimension": levels})
            coded = images.StandardisedCodec(model, latents, params)
            indices = coded.encode(test)
            assert indices.shape == (*latents.shape[:2], params.latent_dim)
            errors.append(float((coded.decode(indices) - direct).square().mean()))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("arm", ["rvq_24", "dimension_wise_16", "bsq_long", "prior_pq", "patch_kmeans", "gumbel_8"])
def test_every_metric_of_an_arm_is_declared_with_its_unit(arm, inputs, tmp_path):
    declared = load_study(PAPER.study, PAPER.slug).metrics
    written = metrics(run(tmp_path, inputs, arm)).select("metric", "unit").unique()
    assert {"psnr", "ssim", "fd_cifar", "nominal_bits", "real_bits"} <= set(written["metric"])
    for metric, unit in written.rows():
        assert declared[metric].unit == unit, metric


def test_partial_codes_end_at_the_whole_code_and_joint_search_is_never_worse(inputs, tmp_path):
    for arm in ("rvq_progressive", "pq_24"):
        found = metrics(run(tmp_path / arm, inputs, arm))
        at = condition({"codebooks": 4})
        partial = found.filter(pl.col("metric") == "partial_psnr", pl.col("at") == at)
        whole = found.filter(pl.col("metric") == "psnr")
        np.testing.assert_allclose(partial["value"].to_numpy(), whole["value"].to_numpy(), atol=0.02)
    found = metrics(run(tmp_path / "additive", inputs, "additive_24")).filter(pl.col("metric") == "latent_error")
    joint, greedy = (found.filter(pl.col("at") == f"search={search}")["value"] for search in ("joint", "greedy"))
    assert (joint - greedy).max() <= 1e-6


def test_claims_read_only_what_the_image_arms_measure(inputs, tmp_path):
    named = {arm for claim in PAPER.claims for test in (*claim.gates, *claim.tests) for arm in test.arms}
    measured = {}
    for claim in PAPER.claims:
        for test in (*claim.gates, *claim.tests):
            for arm in test.arms:
                if arm not in IMAGE_ARMS:
                    continue
                if arm not in measured:
                    measured[arm] = set(metrics(run(tmp_path / arm, inputs, arm))["metric"])
                assert test.metric in measured[arm], (claim.id, test.metric, arm)
    assert {"fsq_long", "bsq_long", "vq_long", "rvq_progressive", "vq_k256"} <= named


def test_the_full_profile_builds_without_memory():
    for arm in TRAINED:
        params = resolve(PAPER, VARIANT, arm, "full", "train")
        assert (params.dataset, params.image_side, params.latent_dim) == ("imagenet-1k-256", 256, 256)
        with torch.device("meta"):
            model = construct(codec.codec_description(params))
        assert model.rows == 16
        assert all(parameter.device.type == "meta" for parameter in model.parameters())


def test_families_are_told_from_names():
    expected = {
        "vq_k256": "vq", "vq": "vq", "prior_fsq": "fsq", "bsq_split_24": "bsq", "bernoulli_24": "bernoulli",
        "dimension_wise_2": "dimension wise", "continuous": "", "mean_colour": "", "patch_kmeans": "", "gumbel_st": "",
        "speech_rvq": "",
    }  # fmt: skip
    assert {arm: family(arm) for arm in expected} == expected


@pytest.mark.slow
def test_figures_have_captions_and_seeds_their_deviation(inputs, tmp_path):
    arms = ("vq_long", "fsq_long", "vq_8", "vq_k256", "rvq_24", "pq_24", "prior_pq", "continuous", "mean_colour", "lfq")
    evaluations, trainings = {}, {}
    for arm in arms:
        directory = run(tmp_path / arm, inputs, arm)
        evaluations[arm, 0] = directory
        if PAPER.arms[arm].trains:
            trainings[arm, 0] = tmp_path / arm / "train" / "run"
    evaluations["vq_8", 1] = evaluations["vq_k256", 0]
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stage = JudgeContext(PAPER, VARIANT, "smoke", evaluations, trainings, tmp_path / name)
        derived = judge.derive(stage)
        drawn.append({figure.name: figure for figure in read_figures(tmp_path / name)})
    assert drawn[0].keys() >= {"rate-distortion", "collapse", "progressive", "reconstructions", "training", "priors"}
    for name, figure in drawn[0].items():
        assert figure == drawn[1][name]
        assert len(figure.caption) > 100
    values = [metrics(evaluations["vq_8", seed]).filter(pl.col("metric") == "psnr")["value"].mean() for seed in (0, 1)]
    (deviation,) = derived["vq_8", 0].frame()["value"].to_list()
    assert deviation == pytest.approx(float(np.std(values, ddof=1)))
    assert ("lfq", 0) not in derived


def test_an_arm_names_the_modules_that_its_quantizer_is_made_of():
    split = components(small("bsq_split_24"), "train")
    assert {f"components.quantizers.{name}" for name in ("channel_split", "bsq", "projected")} <= set(split)
    control = components(resolve(PAPER, VARIANT, "mean_colour", "small", "evaluate"), "evaluate")
    assert not any("quantizers" in name for name in control)
    post = components(resolve(PAPER, VARIANT, "dimension_wise_2", "small", "evaluate"), "evaluate")
    assert "components.quantizers.dimension_wise" in post


def test_parameters_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="task"):
        TrainParams(task="video")
    with pytest.raises(ValueError, match="not permitted"):
        EvaluateParams(levles=(8, 8))
    assert dataclasses.is_dataclass(StageContext)
