"""The stages of Matryoshka Multimodal Models at the smoke profile, on stand-ins."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.compression.nested_pool import check_scales, scaled
from components.data.shapes import world_of
from components.errors import TesseraError
from components.language.causal_lm import CausalLM
from components.language.llama import SIZES
from components.multimodal.question_answering import answer_loss
from components.multimodal.vlm import VLM
from components.nn.vit import PatchViT
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import StageContext
from flows.studies.multimodal import evaluate, standin
from flows.studies.multimodal.models import MultimodalError, asked
from flows.studies.multimodal.params import METRICS, base_name
from flows.studies.multimodal.train import Order

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("matryoshka-multimodal")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)
    make_stand_ins(ROOT, PAPER, "shapes", str(root))
    for spec in smoke_plan(PAPER, "shapes", str(root)):
        run_stage(ROOT, spec, set_values={})
    return root


def directory(root: Path, kind: str, arm: str) -> Path:
    return root / "runs" / PAPER.slug / "shapes" / kind / arm / "s0" / "run"


def metrics(root: Path, arm: str) -> pl.DataFrame:
    return pl.read_parquet(directory(root, "evaluate", arm) / "metrics.parquet")


def context(root: Path, tmp_path: Path, arm: str, kind: str = "evaluate", **changes) -> StageContext:
    params = resolve(PAPER, "shapes", arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (tmp_path / name).mkdir(exist_ok=True)
    given = {f"{part}/{path.name}": path for part in ("data", "bases") for path in (root / part).iterdir()}
    given["train"] = directory(root, "train", PAPER.model_of(arm))
    return StageContext(
        kind, PAPER.slug, "shapes", arm, 0, "smoke", params, given,
        tmp_path / "run", tmp_path / "log", tmp_path / "checkpoint",
    )  # fmt: skip


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    frames = [metrics(runs, arm) for arm in PAPER.arms]
    frames.append(pl.read_parquet(runs / "results" / PAPER.slug / "shapes" / "metrics.parquet"))
    for frame in frames:
        for name, unit in frame.select("metric", "unit").unique().iter_rows():
            assert METRICS[name].unit == unit


def test_arms_pair_question_by_question(runs):
    at = "questions=general,tokens=9"
    named = [
        metrics(runs, arm).filter((pl.col("metric") == "accuracy") & (pl.col("at") == at))["sample"].to_list()
        for arm in ("m3", "scale_specific_9", "pool_at_test", "uniform_at_test", "random_at_test")
    ]
    assert named[0]
    assert all(names == named[0] for names in named)


def test_the_finest_scale_is_the_same_however_an_ordinary_model_would_be_reduced(runs):
    at = "questions=general,tokens=36"
    values = [
        metrics(runs, arm).filter((pl.col("metric") == "accuracy") & (pl.col("at") == at))["value"].to_list()
        for arm in ("scale_specific_36", "pool_at_test", "uniform_at_test", "sequential_at_test", "random_at_test")
    ]
    assert all(each == values[0] for each in values)


def test_the_groups_of_questions_are_what_they_say(runs, tmp_path):
    stage = context(runs, tmp_path, "m3")
    given = asked(stage, load_model(stage.inputs["train"]), "test", 12)
    kinds = given.scenes.questions["type"].to_list()
    for group, wanted in (
        ("general", lambda kind: kind != "read"),
        ("scene", lambda kind: kind in ("exist", "colour", "shape")),
        ("read", lambda kind: kind == "read"),
    ):
        assert given.where(group).tolist() == [wanted(kind) for kind in kinds]
    assert len(set(given.names())) == len(kinds)


def test_every_step_of_every_arm_of_a_seed_reads_the_same_scenes_and_each_once_a_pass():
    order = Order(10, 4, seed=3)
    rows = torch.cat([order.rows(step) for step in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    # A resumed training asks for later steps first.
    assert torch.equal(Order(10, 4, seed=3).rows(4), order.rows(4))


def test_one_step_of_the_method_is_one_step_on_the_mean_of_the_scales(runs):
    curves = pl.read_parquet(directory(runs, "train", "m3") / "curves.parquet")
    series = {name: frame["value"].to_list() for (name,), frame in curves.group_by("series")}
    mean = sum(series[f"answer_loss_{scale}"][-1] for scale in (36, 9, 1)) / 3
    assert series["loss"][-1] == pytest.approx(mean, rel=1e-6)


def test_selected_tokens_at_their_places_are_the_whole_picture_when_all_are_kept(runs, tmp_path):
    stage = context(runs, tmp_path, "random_at_test")
    model = load_model(stage.inputs["train"])
    given = asked(stage, model, "test", 4)
    rows = torch.arange(4)
    text = given.texts.batch(rows)
    places = torch.arange(36).expand(4, -1)
    with torch.no_grad():
        whole = model(scaled(model, given.features[rows], 36), text)
        for keep in (True, False):
            torch.testing.assert_close(evaluate._selected(stage, model, given, places, keep)(rows, text), whole)


def test_seeds_start_from_bases_of_their_own(runs):
    params = resolve(PAPER, "shapes", "m3", "small", "train")
    assert [base_name(params, seed) for seed in (0, 1, 2)] == ["vlm-lite", "vlm-lite-s1", "vlm-lite-s2"]


def test_a_base_that_is_not_an_input_is_named(runs, tmp_path):
    from flows.studies.multimodal.train import train

    with pytest.raises(MultimodalError, match="bases/vlm-lost is not among the stage's inputs"):
        train(context(runs, tmp_path, "m3", "train", base="vlm-lost"))


def test_figures_have_captions(runs):
    results = runs / "results" / PAPER.slug / "shapes"
    captions = {figure.name: figure.caption for figure in read_figures(results)}
    assert set(captions) == {"accuracy-by-scale", "accuracy-by-type", "oracle", "answers"}
    assert all(len(caption) > 60 for caption in captions.values())


def test_the_full_profile_resolves_to_the_papers_setting():
    params = resolve(PAPER, "shapes", "m3", "full", "train")
    assert params.scales == (576, 144, 36, 9, 1)
    assert (params.batch_size, params.learning_rate) == (128, 2e-5)
    assert params.warmup_steps / params.steps == pytest.approx(0.03, abs=1e-3)


def test_the_full_profiles_model_has_the_papers_size():
    with torch.device("meta"):
        encoder = PatchViT(image_side=336, patch_size=14, width=1024, layers=24, heads=16)
        language = CausalLM(SIZES["7b"])
        words = [f"piece {index}" for index in range(language.vocabulary_size - 3)]
        model = VLM(language=language, words=words, rows=24, feature_width=1024, merge=1, encoder="clip")
    params = resolve(PAPER, "shapes", "m3", "full", "train")
    assert check_scales(params.scales, model.rows**2) == (576, 144, 36, 9, 1)
    count = sum(parameter.numel() for part in (encoder, model) for parameter in part.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_stand_ins_are_scenes_of_the_data_sets_world(runs):
    frame = pl.read_parquet(runs / "data" / "shapes-48" / "shapes.parquet")
    assert world_of(frame).side == 48
    with pytest.raises(TesseraError, match="expected shapes-48"):
        standin.make("cifar10", runs)
    with pytest.raises(TesseraError, match="no base of the multimodal study"):
        standin.make_base("cifar-clf-a", runs)


def test_a_training_arm_lowers_its_own_loss(runs, tmp_path):
    stage = context(runs, tmp_path, "m3")
    model = load_model(stage.inputs["train"])
    given = asked(stage, model, "train", 8)
    text = given.texts.batch(torch.arange(8))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = []
    for _ in range(12):
        loss = answer_loss(model(scaled(model, given.features[:8], 9), text), text)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0]
