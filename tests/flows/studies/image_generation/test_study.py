"""The stages of TokenBridge at the smoke profile, on stand-ins."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import construct, load_model
from components.data.pixels import to_bytes
from components.metrics.tables import MetricTable
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import JudgeContext, StageContext
from flows.studies.image_generation import codes as study_codes
from flows.studies.image_generation import evaluate, judge, sources, train
from flows.studies.image_generation.models import generator_description
from flows.studies.image_generation.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.image_generation.tokenbridge.judge import derive

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("tokenbridge")
VARIANT = "cifar10"
GENERATORS = (
    "dim_ar", "dim_ar_natural", "dim_ar_reversed", "dim_parallel", "flow_head", "rvq_ar", "vq_ar", "no_context",
    "unigram",
)  # fmt: skip


@dataclasses.dataclass
class Runs:
    root: Path

    def directory(self, kind: str, arm: str) -> Path:
        return self.root / "runs" / PAPER.slug / VARIANT / kind / arm / "s0" / "run"

    def metrics(self, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.directory("evaluate", arm) / "metrics.parquet")

    def value(self, arm: str, metric: str) -> float:
        return float(self.metrics(arm).filter(pl.col("metric") == metric)["value"].mean())

    @property
    def results(self) -> Path:
        return self.root / "results" / PAPER.slug / VARIANT


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)  # torch imports its compiler when deterministic algorithms are first asked for
    make_stand_ins(ROOT, PAPER, VARIANT, str(root))
    for spec in smoke_plan(PAPER, VARIANT, str(root)):
        run_stage(ROOT, spec, set_values={})
    return Runs(root)


def context(tmp_path: Path, runs: Runs, kind="train", arm="dim_ar", **changes) -> StageContext:
    """A stage on the stand-ins, with other parameters."""
    params = resolve(PAPER, VARIANT, arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (tmp_path / name).mkdir(exist_ok=True)
    given = {f"data/{path.name}": path for path in (runs.root / "data").iterdir()}
    given |= {f"bases/{path.name}": path for path in (runs.root / "bases").iterdir()}
    if kind == "evaluate" and PAPER.model_of(arm):
        given["train"] = runs.directory("train", arm)
    return StageContext(
        kind, PAPER.slug, VARIANT, arm, 0, "smoke", params, given,
        tmp_path / "run", tmp_path / "log", tmp_path / "checkpoint",
    )  # fmt: skip


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    written = pl.concat([runs.metrics(arm).select("metric", "unit") for arm in PAPER.arms]).unique()
    units = {row["metric"]: row["unit"] for row in written.iter_rows(named=True)}
    derived = {"fd_spread", "fd_separation", "total_correlation"}
    assert units == {name: metric.unit for name, metric in METRICS.items() if name not in derived}
    judged = pl.read_parquet(runs.results / "metrics.parquet").select("metric", "unit").unique()
    assert derived <= set(judged["metric"])


def test_generators_are_scored_and_the_rest_only_reconstructs(runs):
    for arm in PAPER.arms:
        names = set(runs.metrics(arm)["metric"])
        assert ("fd_cifar" in names) == (arm in GENERATORS)
        assert ("psnr" in names) == (arm not in GENERATORS)
        assert ("bits_per_dimension" in names) == (arm in GENERATORS and arm != "flow_head")
    assert "fd_cifar_again" in set(runs.metrics("dim_ar")["metric"])


def test_bits_of_codes_are_those_of_their_combinations(runs):
    expected = {
        "dimwise_8": 16 * 16 * 3, "dimwise_16": 16 * 16 * 4, "dim_ar": 1024, "dimwise_64": 16 * 16 * 6,
        "uniform_16": 1024, "continuous": 16 * 16 * 32, "rvq_ar": 16 * 8 * 4,
    }  # fmt: skip
    assert {arm: runs.value(arm, "code_bits") for arm in expected} == expected
    full = resolve(PAPER, VARIANT, "rvq_kmeans_64", "small", "evaluate")
    assert 16 * full.codebooks * math.log2(full.codebook_size) == 1024
    less = resolve(PAPER, VARIANT, "rvq_kmeans_48", "small", "evaluate")
    assert 16 * less.codebooks * math.log2(less.codebook_size) == expected["dimwise_8"]


def test_bits_of_an_image_are_those_of_all_its_dimensions(runs):
    for arm, numbers in {"dim_ar": 256, "vq_ar": 16, "unigram": 256, "rvq_ar": 128}.items():
        per_image, per_number = runs.value(arm, "bits_per_image"), runs.value(arm, "bits_per_dimension")
        assert per_image == pytest.approx(numbers * per_number)
        places = runs.metrics(arm).filter(pl.col("metric") == "dimension_bits")
        assert places["value"].mean() == pytest.approx(per_number)


def test_an_untrained_head_costs_what_equally_likely_levels_cost(runs):
    # Two steps of training move a new head, which predicts all levels alike, by little.
    assert runs.value("dim_parallel", "bits_per_dimension") == pytest.approx(4, abs=0.3)
    assert runs.value("vq_ar", "bits_per_dimension") == pytest.approx(3, abs=0.3)


def test_arms_differ_in_what_they_are_about(runs):
    train_params = {arm: resolve(PAPER, VARIANT, arm, "small", "train") for arm in PAPER.arms if PAPER.arms[arm].trains}
    method = train_params["dim_ar"]
    changed = {
        arm: {name for name in type(method).model_fields if getattr(params, name) != getattr(method, name)}
        for arm, params in train_params.items()
    }
    assert changed == {
        "dim_ar": set(), "dim_ar_natural": {"order"}, "dim_ar_reversed": {"order"}, "dim_parallel": {"head"},
        "flow_head": {"head", "quantizer"}, "rvq_ar": {"quantizer"}, "no_context": {"generator"},
        "vq_ar": {"autoencoder", "autoencoder_module", "quantizer", "head"},
    }  # fmt: skip
    sampled = {
        arm: resolve(PAPER, VARIANT, arm, "small", "evaluate").model_dump(
            include={"guidance", "guidance_schedule", "temperature", "generated", "held_out_images"}
        )
        for arm in GENERATORS
    }
    assert all(settings == sampled["dim_ar"] for settings in sampled.values())


def test_orders_are_by_low_frequency_energy_reversed_or_as_they_come(runs):
    orders = {arm: json.loads((runs.directory("train", arm) / "order.json").read_text()) for arm in GENERATORS[:6]}
    assert orders["dim_ar_natural"] == list(range(16)) == sorted(orders["dim_ar"])
    assert orders["dim_ar_reversed"] == orders["dim_ar"][::-1]
    assert orders["rvq_ar"] == list(range(8))
    shares = runs.metrics("dim_ar").filter(pl.col("metric") == "low_frequency_share")
    assert len(shares) == 16
    assert load_model(runs.directory("train", "dim_ar_reversed")).head.order == orders["dim_ar_reversed"]


def test_the_generator_reads_what_the_decoder_will_read(runs, tmp_path):
    for arm in ("dim_ar", "rvq_ar"):
        stage = context(tmp_path, runs, kind="evaluate", arm=arm)
        codes, model = evaluate.arm_codes(stage), load_model(runs.directory("train", arm))
        tokens = codes.encode(sources.labelled_images(stage, "test", 4).images)
        assert torch.equal(model.embedding.quantizer.decode(tokens), codes.values(tokens))


def test_decoding_undoes_encoding_up_to_the_levels(runs, tmp_path):
    stage = context(tmp_path, runs, kind="evaluate", arm="dimwise_64")
    codes = study_codes.Codes(stage)
    images = sources.labelled_images(stage, "test", 6).images
    tokens = codes.encode(images)
    assert torch.equal(codes.quantize(codes.values(tokens)), tokens)
    latents = codes.latents(images)
    inside = latents.abs() < 4
    assert float((codes.values(tokens) - latents).abs()[inside].max()) < 0.5
    with torch.no_grad():
        expected = to_bytes(codes.autoencoder.decode_values(codes.values(tokens)))
    assert torch.equal(codes.decode(tokens), expected)


def test_half_of_the_dimensions_shows_less_than_all(runs, tmp_path):
    stage = context(tmp_path, runs, kind="evaluate")
    codes, table = evaluate.arm_codes(stage), MetricTable()
    images = sources.labelled_images(stage, "test", 6).images
    evaluate._measure_order(codes, images, list(range(16)), table)
    values = codes.values(codes.encode(images)).clone()
    values[..., 8:] = 0
    expected = evaluate.psnr(codes.decode_values(values), images).mean()
    found = table.frame().filter(pl.col("metric") == "psnr_half")["value"].mean()
    assert found == pytest.approx(float(expected))


def test_two_sets_from_one_model_differ_and_one_set_is_reproducible(runs, tmp_path):
    stage = context(tmp_path, runs, kind="evaluate")
    model = load_model(runs.directory("train", "dim_ar"))
    labels = torch.arange(12) % 10
    one, same, other = (evaluate.sample(stage, model, labels, draw) for draw in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_training_and_an_evaluation_give_the_same_bytes_twice(runs, tmp_path):
    for arm in ("dim_ar", "flow_head", "vq_kmeans"):
        for kind, function in (("train", train.train), ("evaluate", evaluate.evaluate)):
            if kind == "train" and not PAPER.arms[arm].trains:
                continue
            folder = tmp_path / arm / kind
            folder.mkdir(parents=True)
            reset(0)
            function(context(folder, runs, kind=kind, arm=arm))
            first = runs.directory(kind, arm)
            names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
            made = sorted(path.relative_to(folder / "run") for path in (folder / "run").rglob("*") if path.is_file())
            assert names == made
            for name in names:
                assert (first / name).read_bytes() == (folder / "run" / name).read_bytes(), (arm, name)


def test_masked_autoregression_runs_through_the_same_stages(runs, tmp_path):
    changes = {"generator": "masked_autoregressive", "decoder_layers": 1, "class_tokens": 2}
    stage = context(tmp_path, runs, **changes)
    reset(0)
    train.train(stage)
    assert "components.language.masked_autoregressive" in components(stage.params, "train")
    folder = tmp_path / "evaluation"
    folder.mkdir()
    scored = context(folder, runs, kind="evaluate", sampling_steps=3, **changes)
    scored = dataclasses.replace(scored, inputs={**scored.inputs, "train": stage.output})
    evaluate.evaluate(scored)
    names = set(pl.read_parquet(folder / "run" / "metrics.parquet")["metric"])
    assert {"fd_cifar", "bits_per_dimension", "class_accuracy"} <= names


def test_the_judge_compares_distances_with_the_spread_of_two_sets(runs):
    table = pl.read_parquet(runs.results / "metrics.parquet")

    def value(arm: str, metric: str) -> float:
        return table.filter((pl.col("arm") == arm) & (pl.col("metric") == metric))["value"].item()

    spread = abs(runs.value("dim_ar", "fd_cifar") - runs.value("dim_ar", "fd_cifar_again"))
    assert value("dim_ar", "fd_spread") == pytest.approx(spread)
    for arm, factor in {"dim_parallel": 1.0, "flow_head": 1.15, "dim_ar_reversed": 1.0}.items():
        apart = abs(factor * runs.value(arm, "fd_cifar") - runs.value("dim_ar", "fd_cifar"))
        assert value(arm, "fd_separation") == pytest.approx(apart / spread)
    told = runs.value("unigram", "pooled_bits_per_dimension") - runs.value("no_context", "bits_per_dimension")
    assert value("no_context", "total_correlation") == pytest.approx(16 * told)


def test_figures_have_captions_are_small_and_equal_when_drawn_twice(runs, tmp_path):
    captions = {figure.name: figure.caption for figure in read_figures(runs.results)}
    assert set(captions) == {"samples", "scores", "levels", "reconstructions", "dimensions"}
    evaluations = {(arm, 0): runs.directory("evaluate", arm) for arm in PAPER.arms}
    derive(JudgeContext(PAPER, VARIANT, "smoke", evaluations, {}, tmp_path))
    for name, caption in captions.items():
        assert len(caption) > 100
        file = runs.results / "figures" / f"{name}.svg"
        assert file.stat().st_size < 500_000
        assert file.read_bytes() == (tmp_path / "figures" / f"{name}.svg").read_bytes()


def test_the_studys_own_figures_need_no_paper(runs, tmp_path):
    evaluations = {(arm, 0): runs.directory("evaluate", arm) for arm in ("dim_ar", "unigram", "continuous")}
    judge.derive(JudgeContext(PAPER, VARIANT, "smoke", evaluations, {}, tmp_path))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"samples.svg", "scores.svg"}


def test_a_grid_of_images_keeps_every_pixel():
    images = [np.full((3, 2, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    sheet = judge.montage(images, 2)
    assert sheet.shape == (3 * 2 + 2, 2 * 2 + 2, 3)
    assert sheet[:3, :2].max() == sheet[:3, :2].min() == 10
    assert sheet[:3, 4:].max() == sheet[:3, 4:].min() == 20
    assert sheet[5:, :2].max() == sheet[5:, :2].min() == 30
    assert sheet[5:, 2:].min() == 255


def test_the_full_profile_is_the_papers_and_has_its_size():
    params = resolve(PAPER, VARIANT, "dim_ar", "full", "evaluate")
    assert (params.levels_per_dimension, params.value_range, params.least_masked) == (64, 5.0, 0.7)
    assert (params.guidance, params.guidance_schedule, params.temperature) == (3.1, "linear", 0.96)
    assert (params.learning_rate, params.weight_decay, params.weight_ema_decay) == (4e-4, 0.02, 0.9999)

    class Latents:
        """Shapes of the paper's autoencoder: 16 x 16 cells of 16 channels."""

        positions, codebook_sizes, latent_dim = 256, (64,) * 16, 16
        quantizer = None

        @property
        def autoencoder(self):
            return self

    with torch.device("meta"):
        model = construct(generator_description(params, Latents(), range(16)))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_claims_read_only_what_the_smoke_run_measured(runs):
    verdicts = json.loads((runs.results / "verdicts.json").read_text())
    assert json.dumps(verdicts).count("inconclusive") >= len(PAPER.claims)


def test_parameters_and_inputs_that_cannot_be_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="flow_head draws continuous"):
        TrainParams(head="flow_head")
    with pytest.raises(ValueError, match="histograms counts levels"):
        TrainParams(generator="histograms", quantizer="none")
    with pytest.raises(ValueError, match="not permitted"):
        EvaluateParams(temprature=1.0)
    stage = context(tmp_path, runs, autoencoder="cifar-vae-f4")
    with pytest.raises(study_codes.CodesError, match="cifar-vae-f4"):
        study_codes.Codes(stage)
    with pytest.raises(study_codes.CodesError, match="continuous autoencoder"):
        study_codes.Codes(context(tmp_path, runs, quantizer="own"))
    with pytest.raises(sources.ImageSourceError, match="imagenet-1k-256"):
        sources.labelled_images(context(tmp_path, runs, dataset="imagenet-1k-256"), "train", 4)
    with pytest.raises(sources.ImageSourceError, match="set classes"):
        sources.labelled_images(context(tmp_path, runs, classes=2), "train", 8)
    with pytest.raises(sources.ImageSourceError, match="image_side is 16"):
        sources.labelled_images(context(tmp_path, runs, image_side=16), "train", 4)
