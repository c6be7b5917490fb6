"""The stages of PiToMe at the smoke profile, on stand-ins."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import load_model
from components.compression.merging.pitome import PiToMe
from components.compression.merging.pitome_bsm import PiToMeBipartite
from components.compression.merging.plan import to_remove
from components.compression.merging.tofu import ToFu
from components.metrics.tables import condition
from components.multimodal.question_answering import answered
from components.nn.vit import PatchViT
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import JudgeContext, StageContext
from flows.studies.token_reduction import standin
from flows.studies.token_reduction.methods import reducer
from flows.studies.token_reduction.pitome import answers, clusters, pictures
from flows.studies.token_reduction.pitome.evaluate import evaluate
from flows.studies.token_reduction.pitome.judge import TASKS
from flows.studies.token_reduction.pitome.token_figures import TokenFigures
from flows.studies.token_reduction.questions import ReductionError, asked, seeing

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("pitome")
METRICS = load_study("token-reduction", "pitome").metrics
FIGURES = {
    "pictures": {"accuracy-by-operations", "merged-patches", "spectra-of-images", "settings"},
    "clusters": {"spectral-distance"},
    "questions": {"questions-by-operations"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("smoke")
    for variant in PAPER.variants:
        reset(0)
        make_stand_ins(ROOT, PAPER, variant, str(root))
        for spec in smoke_plan(PAPER, variant, str(root)):
            run_stage(ROOT, spec, set_values={})
    return root


def metrics(root: Path, variant: str, arm: str) -> pl.DataFrame:
    return pl.read_parquet(
        root / "runs" / PAPER.slug / variant / "evaluate" / arm / "s0" / "run" / "metrics.parquet"
    )  # fmt: skip


def items(frame: pl.DataFrame, metric: str, **at: object) -> pl.DataFrame:
    return frame.filter((pl.col("metric") == metric) & (pl.col("at") == condition(at))).select("sample", "value")


def context(root: Path, tmp_path: Path, variant: str, arm: str, **changes) -> StageContext:
    params = resolve(PAPER, variant, arm, "smoke", "evaluate").model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (tmp_path / name).mkdir(exist_ok=True)
    given = {f"{part}/{path.name}": path for part in ("data", "bases") for path in (root / part).iterdir()}
    return StageContext(
        "evaluate", PAPER.slug, variant, arm, 0, "smoke", params, given,
        tmp_path / "run", tmp_path / "log", tmp_path / "checkpoint",
    )  # fmt: skip


def evaluated(stage: StageContext) -> pl.DataFrame:
    evaluate(stage)
    return pl.read_parquet(stage.output / "metrics.parquet")


@pytest.mark.parametrize("variant", FIGURES)
def test_every_metric_written_is_declared_and_in_its_unit(runs, variant):
    frames = [metrics(runs, variant, arm) for arm in PAPER.arms_of(variant)]
    frames.append(pl.read_parquet(runs / "results" / PAPER.slug / variant / "metrics.parquet"))
    for frame in frames:
        for name, unit in frame.select("metric", "unit").unique().iter_rows():
            assert METRICS[name].unit == unit


def test_arms_pair_picture_by_picture(runs):
    for task in TASKS:
        named = [
            items(metrics(runs, "pictures", arm), "accuracy", task=task, ratio=0.8)["sample"].to_list()
            for arm in PAPER.arms_of("pictures")
        ]
        assert named[0]
        assert all(names == named[0] for names in named)


def test_the_whole_network_is_the_same_at_every_ratio_and_is_what_is_met_at_one(runs, tmp_path):
    whole = evaluated(context(runs, tmp_path, "pictures", "full", ratios=(0.9, 0.8)))
    kept = evaluated(context(runs, tmp_path, "pictures", "pitome", ratios=(1.0,)))
    for task in TASKS:
        one = items(whole, "accuracy", task=task, ratio=0.9)
        assert one.equals(items(whole, "accuracy", task=task, ratio=0.8))
        assert one.equals(items(kept, "accuracy", task=task, ratio=1.0))
        assert items(kept, "feature_drift", task=task, ratio=1.0)["value"].abs().max() < 1e-6
        cost = [items(frame, "gflops", task=task, ratio=ratio) for frame, ratio in ((whole, 0.9), (kept, 1.0))]
        assert cost[0]["value"].item() == cost[1]["value"].item()


def test_the_whole_classifier_is_right_where_the_base_is(runs, tmp_path):
    stage = context(runs, tmp_path, "pictures", "full")
    task = pictures._classification(stage)
    model = load_model(stage.inputs["bases/cifar-vit"])
    with torch.no_grad():
        named = model(task.pictures).argmax(1)
        found = pictures._answers(stage, task, None, 1.0, None)
    frame = pl.read_parquet(runs / "data" / "cifar10" / "test.parquet")["label"].head(len(named))
    assert (found == 100).tolist() == (named.numpy() == frame.to_numpy()).tolist()


def test_numbers_of_tokens_are_what_the_ratio_leaves(runs):
    for task, patches in (("classification", 64), ("retrieval", 144)):
        frame = metrics(runs, "pictures", "pitome")
        left = patches
        for layer in range(2):
            left -= to_remove(left, 0.8)
            assert items(frame, "tokens", task=task, ratio=0.8, layer=layer)["value"].item() == left
        assert items(frame, "tokens", task=task, ratio=0.8)["value"].item() == left
        assert (
            items(frame, "gflops", task=task, ratio=0.8)["value"].item()
            < items(metrics(runs, "pictures", "full"), "gflops", task=task, ratio=0.8)["value"].item()
        )


def test_dropped_tokens_have_no_spectrum_and_all_others_have(runs):
    layers = {
        arm: metrics(runs, "pictures", arm)
        .filter(pl.col("metric") == "spectral_distance_of_images")["at"]
        .str.extract(r"layer=(\d+)")
        .unique()
        .sort()
        .to_list()
        for arm in ("pitome", "tofu", "prune_late")
    }
    assert layers == {"pitome": ["0", "1"], "tofu": ["1"], "prune_late": ["0"]}


def test_the_drop_is_the_difference_to_the_whole_network(runs):
    derived = pl.read_parquet(runs / "results" / PAPER.slug / "pictures" / "metrics.parquet")
    for arm in ("tome", "random_merge"):
        for task in TASKS:
            own, whole = (
                items(metrics(runs, "pictures", name), "accuracy", task=task, ratio=0.8)["value"].mean()
                for name in (arm, "full")
            )
            at = condition({"task": task, "ratio": 0.8})
            found = derived.filter((pl.col("arm") == arm) & (pl.col("metric") == "drop") & (pl.col("at") == at))
            assert found["value"].item() == pytest.approx(whole - own)


def test_random_arms_are_reproducible_and_differ_between_seeds(runs, tmp_path):
    stage = context(runs, tmp_path, "pictures", "random_merge")
    task = pictures._retrieval(stage)
    method = reducer(stage.params)
    groups = [
        pictures._run(stage, task, task.pictures, method, 0.8, pictures._generator(stage, number, 0)).groups(144)
        for number in (0, 0, 1)
    ]
    assert torch.equal(groups[0], groups[1])
    assert not torch.equal(groups[0], groups[2])


def test_timings_go_into_the_log_and_not_into_the_metrics(runs, tmp_path):
    stage = context(runs, tmp_path, "pictures", "pitome", timing_runs=2)
    assert "seconds" not in evaluated(stage)["unit"].to_list()
    found = pl.read_parquet(stage.log / "timings.parquet")
    assert found.select("task", "batch").unique().height == 4
    assert (found["median"] > 0).all()


def test_methods_of_a_seed_merge_the_same_clusters(runs, tmp_path):
    one = clusters._drawn(context(runs, tmp_path, "clusters", "pitome"), 16, 1)
    other = clusters._drawn(context(runs, tmp_path, "clusters", "tome"), 16, 1)
    assert torch.equal(one.tokens, other.tokens)
    assert not torch.equal(one.tokens, clusters._drawn(context(runs, tmp_path, "clusters", "tome"), 16, 2).tokens)


def test_spectral_distances_are_averaged_draw_by_draw(runs):
    frame = metrics(runs, "clusters", "pitome")
    for weight in ("similarity", "distance"):
        whole = items(frame, "spectral_distance", weight=weight, ratio=0.8)
        parts = [
            items(frame, "spectral_distance", weight=weight, ratio=0.8, noise=noise)["value"].to_numpy()
            for noise in (0.3, 0.1, 0.03, 0.01)
        ]
        np.testing.assert_allclose(whole["value"].to_numpy(), np.mean(parts, axis=0))
        assert len(whole) == 3
        by_size = items(frame, "spectral_distance_by_size", weight=weight, ratio=0.8, noise=0.3, tokens=16)
        assert by_size["value"].item() == pytest.approx(parts[0].mean())


def test_the_margin_of_the_planted_clusters_is_that_of_the_energy():
    params = resolve(PAPER, "clusters", "pitome", "small", "evaluate")
    assert reducer(params).margin == 0.9
    assert reducer(params, margin=params.cluster_margin).margin == 0.75


def test_without_merging_questions_are_answered_as_by_the_ordinary_model(runs, tmp_path):
    stage = context(runs, tmp_path, "questions", "full")
    model = seeing(stage)
    about = asked(stage, model)
    look = answers._looking(stage, model, about, None, 0.8, None)
    rows = torch.arange(len(about.scenes))
    text = about.texts.batch(rows)
    with torch.no_grad():
        torch.testing.assert_close(
            answers._reading(model, look)(rows, text), model.model(model.model.visual(about.features[rows]), text)
        )
    right = answered(model.model, lambda each: model.model.visual(about.features[each]), about.texts)
    frame = metrics(runs, "questions", "full")
    found = pl.concat([items(frame, "accuracy", questions=group, ratio=0.8) for group in ("general", "read")])
    named = dict(zip(about.names(), right.tolist(), strict=True))
    assert {name: value == 100 for name, value in found.iter_rows()} == named


def test_merged_tokens_keep_the_position_of_a_patch_of_theirs_in_raster_order(runs, tmp_path):
    stage = context(runs, tmp_path, "questions", "pitome")
    model = seeing(stage)
    about = asked(stage, model)
    visual, places = answers._looking(stage, model, about, reducer(stage.params), 0.8, None)(torch.arange(3))
    # A stand-in's encoder of two blocks is read behind the first.
    assert visual.shape[:2] == places.shape == (3, 144 - to_remove(144, 0.8))
    assert (places[:, 1:] > places[:, :-1]).all()
    assert 0 <= int(places.min()) <= int(places.max()) < 144


@pytest.mark.parametrize("variant", FIGURES)
def test_figures_have_captions(runs, variant):
    captions = {
        figure.name: figure.caption for figure in read_figures(runs / "results" / PAPER.slug / variant)
    }  # fmt: skip
    assert set(captions) == FIGURES[variant]
    assert all(len(caption) > 60 for caption in captions.values())


def test_arms_are_shown_side_by_side_at_a_ratio_that_all_of_them_have(runs, tmp_path):
    measured = runs / "runs" / PAPER.slug / "pictures" / "evaluate"
    evaluations = {(arm, 0): tmp_path / arm for arm in ("full", "pitome", "tome", "no_protect")}
    for (arm, _), copy in evaluations.items():
        copy.mkdir()
        samples, rows = (
            pl.read_parquet(measured / arm / "s0" / "run" / name) for name in ("samples.parquet", "metrics.parquet")
        )
        if arm != "no_protect":
            # Only the ablation stops at the ratios of the claims.
            samples = pl.concat([samples, samples.with_columns(ratio=pl.lit(0.6))])
            lower = rows.filter(pl.col("at").str.contains("ratio=0.8"))
            lower = lower.with_columns(pl.col("at").str.replace("ratio=0.8", "ratio=0.6", literal=True))
            rows = pl.concat([rows, lower])
        samples.write_parquet(copy / "samples.parquet")
        rows.write_parquet(copy / "metrics.parquet")
    figures = TokenFigures(JudgeContext(PAPER, "pictures", "small", evaluations, {}, tmp_path))
    figures.merged()
    figures.settings()
    captions = {figure.name: figure.caption for figure in read_figures(tmp_path)}
    assert "at a keep ratio of 0.8 " in captions["merged-patches"]
    assert "at a keep ratio of 0.8 " in captions["settings"]


def test_arms_are_the_methods_that_they_say():
    found = {arm: reducer(resolve(PAPER, "pictures", arm, "small", "evaluate")) for arm in PAPER.arms_of("pictures")}
    assert found["full"] is None
    assert isinstance(found["no_protect"], PiToMeBipartite)
    assert (found["pitome"].energy, found["pitome"].margin, found["pitome"].split) == ("code", 0.9, "alternate")
    assert found["random_split"].split == "random"
    assert found["energy_paper"].energy == "paper"
    assert (found["energy_kernel"].split, found["energy_kernel"].fall) == ("halves", 0.25)
    assert (found["margin_75"].margin, found["margin_95"].margin) == (0.75, 0.95)
    assert isinstance(found["tofu"], ToFu)
    assert isinstance(found["pitome"], PiToMe)
    assert found["prune_late"].dropping == "late"


def test_an_arm_depends_on_its_own_method_only():
    study = load_study("token-reduction", "pitome")
    for arm, method in (("pitome", "pitome"), ("tome", "tome"), ("no_protect", "pitome_bsm")):
        found = study.components(resolve(PAPER, "pictures", arm, "small", "evaluate"), "evaluate")
        assert [name for name in found if "merging" in name] == [f"components.compression.merging.{method}"]
    assert study.components(resolve(PAPER, "clusters", "tome", "small", "evaluate"), "evaluate") == (
        "components.compression.merging.tome",
    )


def test_the_full_profiles_network_has_the_papers_size():
    params = resolve(PAPER, "pictures", "pitome", "full", "evaluate")
    assert (params.timing_runs, params.test_images) == (12, 50_000)
    with torch.device("meta"):
        encoder = PatchViT(image_side=224, patch_size=16, width=384, layers=12, heads=6)
        head = torch.nn.Linear(384, 1000)
    count = sum(parameter.numel() for part in (encoder, head) for parameter in part.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_a_base_that_is_not_an_input_is_named(runs, tmp_path):
    with pytest.raises(ReductionError, match="bases/deit-s is not among the stage's inputs"):
        evaluate(context(runs, tmp_path, "pictures", "pitome", classifier="deit-s"))


def test_stand_ins_are_the_networks_that_the_bases_are(runs, tmp_path):
    model = load_model(runs / "bases" / "cifar-vit")
    assert (model.patches, model.image_side) == (64, 32)
    assert load_model(runs / "bases" / "shapes-vit").encoder.patches == 144
    with pytest.raises(Exception, match="no base of the multimodal study"):
        standin.make_base("cifar-clf-a", tmp_path)
