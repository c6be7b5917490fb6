"""The stages of One-D-Piece at the smoke profile, on stand-ins."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.compression.image_codecs import best_under
from components.data.images import tile
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import JudgeContext, StageContext
from flows.studies.image_tokenizer import judge, photographs, sources, standin, train
from flows.studies.image_tokenizer.one_d_piece import evaluate
from flows.studies.image_tokenizer.params import METRICS, EvaluateParams, TrainParams, components

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("one-d-piece")


@dataclasses.dataclass
class Runs:
    root: Path

    def directory(self, kind: str, arm: str, variant: str = "cifar10") -> Path:
        return self.root / "runs" / PAPER.slug / variant / kind / arm / "s0" / "run"

    def metrics(self, arm: str, variant: str = "cifar10") -> pl.DataFrame:
        return pl.read_parquet(self.directory("evaluate", arm, variant) / "metrics.parquet")

    def results(self, variant: str = "cifar10") -> Path:
        return self.root / "results" / PAPER.slug / variant


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)  # torch imports its compiler when deterministic algorithms are first asked for
    for variant in PAPER.variants:
        make_stand_ins(ROOT, PAPER, variant, str(root))
        for spec in smoke_plan(PAPER, variant, str(root)):
            run_stage(ROOT, spec, set_values={})
    return Runs(root)


def context(tmp_path: Path, inputs: Path, kind="train", arm="tail_drop", variant="cifar10", **changes) -> StageContext:
    """A stage on the stand-ins below `inputs`, with other parameters."""
    params = resolve(PAPER, variant, arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (tmp_path / name).mkdir(exist_ok=True)
    given = {f"data/{path.name}": path for path in (inputs / "data").iterdir()}
    given |= {f"bases/{path.name}": path for path in (inputs / "bases").iterdir()}
    return StageContext(
        kind, PAPER.slug, variant, arm, 0, "smoke", params, given,
        tmp_path / "run", tmp_path / "log", tmp_path / "checkpoint",
    )  # fmt: skip


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    frames = [runs.metrics(arm, variant) for variant in PAPER.variants for arm in PAPER.arms_of(variant)]
    written = pl.concat(frames).select("metric", "unit").unique()
    assert set(written["metric"]) == set(METRICS)
    assert {row["metric"]: row["unit"] for row in written.iter_rows(named=True)} == {
        name: metric.unit for name, metric in METRICS.items()
    }


def test_a_codec_trains_nothing_and_needs_no_tokenizer(runs):
    assert not runs.directory("train", "jpeg").exists()
    assert set(runs.metrics("jpeg")["metric"]) == {
        "psnr_photographs", "ms_ssim_photographs", "fd_tiles", "payload_bytes",
    }  # fmt: skip
    modules = components(resolve(PAPER, "cifar10", "jpeg", "small", "evaluate"), "evaluate")
    assert not any("tokenizers" in module for module in modules)


def test_shorter_tokenizers_are_measured_up_to_their_own_length(runs):
    lengths = runs.metrics("fixed_k_8").filter(pl.col("metric") == "psnr")["at"].unique().to_list()
    assert sorted(lengths) == ["k=1", "k=2", "k=4", "k=8"]


def test_every_budget_is_kept_and_arms_pair_on_the_same_photographs(runs):
    groups = []
    for arm in ("tail_drop", "jpeg", "webp"):
        frame = runs.metrics(arm)
        used = frame.filter(pl.col("metric") == "payload_bytes")
        for at, value in zip(used["at"], used["value"], strict=True):
            assert 0 < value <= int(at.removeprefix("bytes="))
        tiles = frame.filter((pl.col("metric") == "fd_tiles") & (pl.col("at") == "bytes=576"))
        groups.append(tiles["sample"].to_list())
        assert tiles["value"].mean() > 0
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[0])) == len(groups[0]) == 2


def test_two_photographs_of_one_scene_are_one_sampling_unit(runs, tmp_path):
    stage = context(tmp_path, runs.root, kind="evaluate", arm="jpeg", test_photos=3)
    photos = sources.photographs(stage)
    pair = sources.Photographs(photos.images, photos.names, ["one", "two", "two"])
    from components.metrics.tables import MetricTable
    from flows.studies.image_tokenizer.evaluate import Samples

    table = MetricTable()
    photographs._measure(stage, pair, {576: photos.images ^ 3}, table, Samples())
    rows = table.frame().filter(pl.col("metric") == "psnr_photographs")
    assert rows["sample"].to_list() == ["one", "two"]
    each = photographs.psnr(photos.images ^ 3, photos.images).double()
    assert rows["value"][1] == pytest.approx(float(each[1:].mean()), abs=1e-6)


def test_a_photographs_bytes_are_those_of_its_packed_tokens():
    assert [photographs.tokens_within(budget, 64, 512) for budget in (576, 1152, 2304)] == [8, 16, 32]
    assert photographs.tokens_within(576, 64, 4096) == 6  # 9 bytes of a tile hold 6 tokens of 12 bits
    assert photographs.tokens_within(63, 64, 512) == 0


def test_photographs_that_are_tested_share_no_scene_with_those_learned_from(runs, tmp_path):
    stage = context(tmp_path, runs.root, variant="photos", kind="evaluate")
    learned = {bytes(image.numpy().tobytes()) for image in sources.training_images(stage)}
    test = sources.test_images(stage, 10)
    assert test.labels is None
    assert set(test.items) == set(sources.photographs(stage).groups) == {"market", "orchard"}
    assert not learned & {bytes(image.numpy().tobytes()) for image in test.images}
    canonical = sources.photographs(context(tmp_path, runs.root, kind="evaluate", test_photos=9))
    assert set(canonical.groups) == {"meadow", "market", "orchard"}


def test_test_images_come_from_the_test_split_and_training_images_from_the_other(runs, tmp_path):
    stage = context(tmp_path, runs.root, kind="evaluate", train_images=7)
    learned, test = sources.training_images(stage), sources.test_images(stage, 5)
    assert (len(learned), len(test.images)) == (7, 5)
    assert not any(torch.equal(one, other) for one in learned for other in test.images)


def test_a_data_set_that_was_not_given_is_named(runs, tmp_path):
    stage = context(tmp_path, runs.root, dataset="imagenet-1k-256")
    with pytest.raises(sources.ImageSourceError, match="imagenet-1k-256"):
        sources.training_images(stage)
    with pytest.raises(sources.ImageSourceError, match="image_side is 16"):
        sources.training_images(context(tmp_path, runs.root, image_side=16))


def test_a_training_and_an_evaluation_give_the_same_bytes_twice(runs, tmp_path):
    for kind, function in (("train", train.train), ("evaluate", evaluate.evaluate)):
        stage = context(tmp_path, runs.root, kind=kind)
        stage = dataclasses.replace(stage, inputs={**stage.inputs, "train": runs.directory("train", "tail_drop")})
        reset(0)
        function(stage)
        first = runs.directory(kind, "tail_drop")
        names = sorted(path.name for path in first.iterdir())
        assert set(names) == {path.name for path in tmp_path.joinpath("run").iterdir()}
        for name in names:
            assert (first / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name
            (tmp_path / "run" / name).unlink()


def test_arms_differ_in_the_drop_law_alone(runs):
    settings = {arm: resolve(PAPER, "cifar10", arm, "small", "train") for arm in PAPER.arms if PAPER.arms[arm].trains}
    assert {arm: params.drop for arm, params in settings.items() if not arm.startswith("fixed")} == {
        "tail_drop": "uniform", "no_drop": "none", "drop_pow2": "powers_of_two",
    }  # fmt: skip
    blind = {params.model_copy(update={"drop": "none", "tokens": 32}) for params in settings.values()}
    assert len(blind) == 1


def test_all_three_trained_models_start_from_the_same_weights(runs, tmp_path):
    """Same seed, same architecture: what differs after one step is what the drop law did."""
    states = {}
    for arm in ("tail_drop", "no_drop"):
        folder = tmp_path / arm
        folder.mkdir()
        stage = context(folder, runs.root, arm=arm, steps=1, learning_rate=1e-12, warmup_steps=0)
        reset(0)
        train.train(stage)
        states[arm] = load_model(folder / "run").encoder.state_dict()
    for name, tensor in states["tail_drop"].items():
        torch.testing.assert_close(tensor, states["no_drop"][name], atol=1e-6, rtol=0)


def test_proxy_codes_train_in_two_stages(runs, tmp_path):
    (tmp_path / "inputs").mkdir()
    base = tmp_path / "inputs" / "cifar-vq-f4"
    base.mkdir()
    standin.make_base("cifar-vq-f4", base)
    stage = context(
        tmp_path, runs.root, target="cifar-vq-f4", steps=2, finetune_steps=3, adversarial_start=1, weight_ema_decay=0.5
    )
    stage = dataclasses.replace(stage, inputs={**stage.inputs, "bases/cifar-vq-f4": base})
    reset(0)
    train.train(stage)
    curves = pl.read_parquet(stage.output / "curves.parquet")
    assert {"code_entropy", "stage 2 pixel_error", "stage 2 feature_error", "stage 2 generator_loss"} <= set(
        curves["series"]
    )
    assert curves["step"].max() == 2 + 3
    model, grid = load_model(stage.output), load_model(base)
    assert model.head.patches == 64
    assert model(torch.rand(2, 3, 32, 32), 5).images.shape == (2, 3, 32, 32)
    same = [
        torch.equal(one, other)
        for one, other in zip(model.head.grid.encoder.parameters(), grid.encoder.parameters(), strict=True)
    ]
    assert all(same)
    assert not torch.equal(model.head.grid.codebook, grid.codebook)
    listed = components(stage.params, "train")
    assert "components.tokenizers.image.maskgit_vqgan" in listed


def test_stage_two_leaves_encoder_and_codes_as_stage_one_made_them(runs, tmp_path):
    (tmp_path / "cifar-vq-f4").mkdir()
    standin.make_base("cifar-vq-f4", tmp_path / "cifar-vq-f4")
    models = []
    for finetune_steps in (0, 2):
        folder = tmp_path / str(finetune_steps)
        folder.mkdir()
        stage = context(folder, runs.root, target="cifar-vq-f4", steps=2, finetune_steps=finetune_steps)
        stage = dataclasses.replace(stage, inputs={**stage.inputs, "bases/cifar-vq-f4": tmp_path / "cifar-vq-f4"})
        reset(0)
        train.train(stage)
        models.append(load_model(folder / "run"))
    for part in ("encoder", "quantizer"):
        before, after = (getattr(model, part).state_dict() for model in models)
        for name in before.keys() - {"uses"}:
            assert torch.equal(before[name], after[name]), (part, name)
    assert not torch.equal(models[0].decoder.mask_token, models[1].decoder.mask_token)


def test_the_full_profile_resolves_to_the_papers_setting():
    params = resolve(PAPER, "cifar10", "tail_drop", "full", "train")
    assert (params.tokens, params.codebook_size, params.code_dim, params.drop) == (256, 4096, 12, "uniform")
    assert (params.learning_rate, params.weight_decay, params.gradient_clip) == (1e-4, 1e-4, 1.0)
    assert (params.warmup_steps, params.final_fraction, params.commitment_weight) == (10_000, 0.1, 0.25)
    assert (params.perceptual_weight, params.adversarial_weight, params.adversarial_start) == (0.1, 0.01, 20_000)
    assert params.lecam_weight == 0.001


def test_figures_have_captions_are_small_and_equal_when_drawn_twice(runs, tmp_path):
    drawn = runs.results() / "figures"
    captions = {figure.name: figure.caption for figure in read_figures(drawn.parent)}
    assert set(captions) == {
        "quality-by-length", "prefixes", "positions", "first-tokens", "equal-bytes", "photographs",
    }  # fmt: skip
    stage = JudgeContext(
        PAPER,
        "cifar10",
        "smoke",
        {(arm, 0): runs.directory("evaluate", arm) for arm in PAPER.arms},
        {},
        tmp_path,
    )
    from flows.studies.image_tokenizer.one_d_piece.judge import derive

    derive(stage)
    for name, caption in captions.items():
        assert len(caption) > 100
        assert (drawn / f"{name}.svg").stat().st_size < 500_000
        assert (drawn / f"{name}.svg").read_bytes() == (tmp_path / "figures" / f"{name}.svg").read_bytes()


def test_the_studys_own_figures_need_no_paper(runs, tmp_path):
    arms = ("tail_drop", "no_drop")
    evaluations = {(arm, 0): runs.directory("evaluate", arm) for arm in arms}
    judge.derive(JudgeContext(PAPER, "cifar10", "smoke", evaluations, {}, tmp_path))
    assert (tmp_path / "figures" / "quality-by-length.svg").is_file()


def test_claims_read_only_what_the_smoke_run_measured(runs):
    verdicts = json.loads((runs.results() / "verdicts.json").read_text())
    assert json.dumps(verdicts).count("inconclusive") >= 4


def test_parameters_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="drop"):
        TrainParams(drop="sometimes")
    with pytest.raises(ValueError, match="not permitted"):
        EvaluateParams(lenghts=(1,))


def test_codec_arms_code_the_same_photographs_as_the_tokenizer(runs, tmp_path):
    stage = context(tmp_path, runs.root, kind="evaluate", arm="jpeg")
    photos = sources.photographs(stage)
    assert len(tile(photos.images, 32)) == 36 * len(photos.images)
    image = photos.images[0].permute(1, 2, 0).contiguous().numpy()
    best = best_under(image, "jpeg", stage.params.photo_bytes, stage.params.codec_quality_step)
    rows = runs.metrics("jpeg").filter(
        (pl.col("metric") == "psnr_photographs") & (pl.col("at") == condition({"bytes": 576}))
    )
    assert rows.filter(pl.col("sample") == photos.groups[0])["value"].item() == pytest.approx(best[576].psnr, abs=1e-4)
