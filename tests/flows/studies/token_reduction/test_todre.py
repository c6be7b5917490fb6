"""The stages of ToDRE at the smoke profile, on stand-ins, and what their numbers must be where that is known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import load_model
from components.compression.flops import counted
from components.compression.layer_drop import DropRule, layout_of, migration
from components.compression.nested_pool import language_flops
from components.data.images import encode_png
from components.language.causal_lm import CausalLM
from components.language.llama import SIZES
from components.metrics.tables import MetricTable, condition
from components.multimodal.vlm import VLM, text_batch
from components.nn.vit import PatchViT
from components.training.determinism import reset
from flows.declarations.paper import AllOf
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.ledger.figures import read_figures
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import JudgeContext, StageContext
from flows.studies.token_reduction.questions import seeing
from flows.studies.token_reduction.todre import measures, reading
from flows.studies.token_reduction.todre.evaluate import evaluate
from flows.studies.token_reduction.todre.judge import derive
from flows.studies.token_reduction.todre.timings import TIMINGS
from flows.studies.token_reduction.todre.train import train

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("todre")
METRICS = load_study("token-reduction", "todre").metrics
SELECTED = ("kcenter", "maxsum", "cls_topk", "random", "uniform", "start_random", "kcenter_centred")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)
    for variant in PAPER.variants:
        make_stand_ins(ROOT, PAPER, variant, str(root))
        for spec in smoke_plan(PAPER, variant, str(root)):
            run_stage(ROOT, spec, set_values={})
    return root


def directory(root: Path, kind: str, arm: str, variant: str = "shapes", part: str = "run") -> Path:
    return root / "runs" / PAPER.slug / variant / kind / arm / "s0" / part


def metrics(root: Path, arm: str, metric: str, at: dict | None = None, variant: str = "shapes") -> pl.DataFrame:
    frame = pl.read_parquet(directory(root, "evaluate", arm, variant) / "metrics.parquet")
    frame = frame.filter(pl.col("metric") == metric)
    return frame if at is None else frame.filter(pl.col("at") == condition(at))


def context(root: Path, folder: Path, arm: str, kind: str = "evaluate", variant: str = "shapes", **changes):
    params = resolve(PAPER, variant, arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    given = {f"{part}/{path.name}": path for part in ("data", "bases") for path in (root / part).iterdir()}
    return StageContext(
        kind, PAPER.slug, variant, arm, 0, "smoke", params, given, folder / "run", folder / "log", folder / "checkpoint"
    )


def big(model: VLM) -> VLM:
    torch.manual_seed(0)
    torch.nn.init.normal_(model.language.embedding.weight, std=1.0)
    for parameter in model.language.transformer.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.6)
    return model


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    frames = [
        pl.read_parquet(directory(runs, "evaluate", arm, variant) / "metrics.parquet")
        for variant in PAPER.variants
        for arm in PAPER.arms_of(variant)
    ]
    frames += [
        pl.read_parquet(runs / "results" / PAPER.slug / variant / "metrics.parquet") for variant in PAPER.variants
    ]
    written = set()
    for frame in frames:
        for name, unit in frame.select("metric", "unit").unique().iter_rows():
            assert METRICS[name].unit == unit
            written.add(name)
    own = load_study("token-reduction", "todre").metrics.keys() - load_study("token-reduction").metrics.keys()
    # Nothing is retained of a stand-in that answers no better than blind.
    assert own <= written | {"retained"}


def test_every_number_that_a_claim_names_is_measured(runs):
    frame = pl.read_parquet(runs / "results" / PAPER.slug / "shapes" / "metrics.parquet")
    measured = set(frame.select("arm", "metric", "at").unique().iter_rows())
    for claim in PAPER.claims:
        for test in (*claim.gates, *claim.tests):
            assert not isinstance(test, AllOf)
            for arm in test.arms:
                at = getattr(test, "over_at", None) if arm == getattr(test, "over", None) else test.at
                assert (arm, test.metric, condition(at)) in measured


def test_scenes_are_the_test_items_of_every_arm(runs):
    for group in ("general", "read", "all"):
        for arm in (*SELECTED, "todre", "fastv", "tome_merge"):
            found = metrics(runs, arm, "accuracy", {"questions": group, "tokens": 14})["sample"].to_list()
            assert found == [str(scene) for scene in range(12)]


def test_values_of_scenes_have_the_share_as_their_mean_and_its_spread_when_scenes_are_drawn_whole():
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 9, 400)
    easy = generator.random(400)
    sums = generator.binomial(counts, easy)
    items = measures.ratio_items(torch.from_numpy(sums), torch.from_numpy(counts)).numpy()
    assert items.mean() == pytest.approx(sums.sum() / counts.sum(), abs=1e-12)
    draws = generator.integers(0, 400, (4000, 400))
    drawn = sums[draws].sum(1) / counts[draws].sum(1)
    assert items.std(ddof=1) / 20 == pytest.approx(drawn.std(), rel=0.05)
    # Questions of a scene are alike: as single items they would promise too much.
    share = sums.sum() / counts.sum()
    assert items.var(ddof=1) / 400 > 1.5 * share * (1 - share) / counts.sum()


def test_groups_of_questions_are_what_they_say(runs, tmp_path):
    stage = context(runs, tmp_path, "kcenter")
    about = reading.pictures(stage, seeing(stage)).about
    kinds = about.scenes.questions["type"].to_list()
    assert measures.chosen(about, "all").all()
    assert measures.chosen(about, "general").tolist() == [kind != "read" for kind in kinds]
    assert measures.chosen(about, "count").tolist() == [kind == "count" for kind in kinds]
    values = torch.arange(len(kinds), dtype=torch.float64)
    own = measures.chosen(about, "read")
    assert float(measures.by_scene(about, values, own).mean()) == pytest.approx(float(values[own].mean()))


@pytest.mark.parametrize("arm", [*SELECTED, "tome_merge", "fastv", "todre"])
@torch.no_grad()
def test_keeping_every_token_gives_the_logits_of_the_whole_model(runs, tmp_path, arm):
    # The rule of `todre` never fires at a threshold that no share lies below.
    stage = context(runs, tmp_path, arm, threshold=1e-9)
    found = seeing(stage)
    given, model = reading.pictures(stage, found), big(found.model)
    rows = torch.arange(5)
    text = reading.batch_of(stage, given, rows)
    whole = model(model.visual(given.about.features[rows]), text)
    got = reading.reader(stage, model, given, 144)(rows, text)
    if arm == "fastv":
        torch.testing.assert_close(got.logits, whole, rtol=1e-4, atol=1e-4)
    elif arm == "tome_merge":
        # A mask of floats takes another kernel.
        torch.testing.assert_close(got.logits, whole, rtol=1e-4, atol=1e-4)
        assert got.kept.tolist() == [list(range(144))] * 5
    else:
        assert torch.equal(got.logits, whole)
        assert got.kept.tolist() == [list(range(144))] * 5


@pytest.mark.parametrize("arm", [*SELECTED, "tome_merge"])
@torch.no_grad()
def test_the_choice_behind_the_encoder_does_not_look_at_the_question(runs, tmp_path, arm):
    stage = context(runs, tmp_path, arm)
    found = seeing(stage)
    given = reading.pictures(stage, found)
    rows, others = torch.arange(4), torch.arange(4, 8)
    one, two = (
        reading.reader(stage, found.model, given, 14)(rows, reading.batch_of(stage, given, of)).kept
        for of in (rows, others)
    )
    assert torch.equal(one, two)


@torch.no_grad()
def test_positions_of_what_stays_are_the_original_ones(runs, tmp_path):
    stage = context(runs, tmp_path, "kcenter")
    found = seeing(stage)
    given, model = reading.pictures(stage, found), big(found.model)
    rows = torch.arange(3)
    text = reading.batch_of(stage, given, rows)
    visual = model.visual(given.about.features[rows])
    kept = reading.selection(stage, 14)(visual, given.attention[rows], 14)
    # The same as hiding all others in the whole sequence.
    seen = torch.zeros(3, 144, dtype=torch.bool).scatter(1, kept, True)
    hidden = model.predicted(model.read(model.prepare(visual, text, seen=seen)), text)
    got = reading.reader(stage, model, given, 14)(rows, text).logits
    torch.testing.assert_close(got, hidden, rtol=1e-4, atol=1e-4)
    moved = model(visual.gather(1, kept[..., None].expand(-1, -1, visual.shape[2])), text)
    assert (got - moved).abs().max() > 1e-2


def test_a_rule_of_the_sweep_costs_what_running_it_costs(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.studies.token_reduction.todre.evaluate.seeing", _big_seeing)
    monkeypatch.setattr("flows.studies.token_reduction.todre.evaluate.pictures", _own_answers)
    shares = {}
    for arm, changes in (
        ("fixed_drop", {"swept_thresholds": (0.6,)}),
        ("todre", {"threshold": 0.6}),
        ("kcenter", {}),
    ):
        stage = context(runs, tmp_path / arm, arm, budgets=(14,), timed=False, **changes)
        evaluate(stage)
        frame = pl.read_parquet(stage.output / "metrics.parquet")
        shares[arm] = {(name, at): rows["value"].to_numpy() for (name, at), rows in frame.group_by(["metric", "at"])}
    swept = condition({"check": 1, "questions": "all", "threshold": 0.6, "tokens": 14})
    plain = condition({"questions": "all", "tokens": 14})
    fired = shares["todre"]["fired", plain]
    assert 5 < fired.mean() < 95
    np.testing.assert_allclose(shares["fixed_drop"]["rule_fired", swept], fired)
    cost = shares["kcenter"]["accuracy", plain] - shares["todre"]["accuracy", plain]
    assert cost.mean() > 1
    np.testing.assert_allclose(shares["fixed_drop"]["rule_cost", swept], cost, atol=1e-9)
    never = condition({"layer": 2, "questions": "all", "tokens": 14})
    np.testing.assert_allclose(shares["fixed_drop"]["dropped_accuracy", never], shares["kcenter"]["accuracy", plain])
    assert np.abs(shares["fixed_drop"]["drop_cost", never]).max() == 0


def _big_seeing(stage: StageContext):
    found = seeing(stage)
    return found._replace(model=big(found.model))


def _own_answers(stage: StageContext, found) -> reading.Pictures:
    """Scenes whose right answers are what the model says with 14 diverse tokens, so that every change is an error."""
    given = reading.pictures(stage, found)
    plain = replace(stage, params=stage.params.model_copy(update={"drop": "never"}))
    rows = torch.arange(len(given.about.scenes))
    with torch.no_grad():
        said = reading.reader(plain, found.model, given, 14)(rows, reading.batch_of(stage, given, rows)).logits
    targets = given.about.texts.targets
    targets[targets >= 0] = said.argmax(-1).to(targets.dtype)
    return given


@torch.no_grad()
def test_operations_are_those_that_run(runs, tmp_path):
    stage = context(runs, tmp_path, "kcenter")
    model = seeing(stage).model
    text = text_batch(model.words, "how many objects are there?")
    length = text.tokens.shape[1]
    prepared = model.prepare(torch.randn(1, 14, 8), text)
    ran = counted(lambda: model.read(prepared))
    assert measures.language_flops(model, [14, 14], length) == pytest.approx(ran, rel=0.01)
    assert measures.language_flops(model, [14, 14], length) == language_flops(model, 14, length)
    layout, block = layout_of(text, 14), model.blocks[0]
    for rows in ("all", "last"):
        asked = counted(partial(migration, block, *prepared, layout, rows))
        assert measures.rule_flops(model, DropRule((1,), 0.1, rows), 14, length) == asked


def test_dropping_and_pruning_cost_less(runs):
    at = {"tokens": 14}
    value = {
        arm: metrics(runs, arm, "language_gflops", {"tokens": count})["value"].item()
        for arm, count in (("full", 144), ("kcenter", 14), ("kcenter", 48), ("fastv", 14))
    }
    assert value["kcenter"] < value["fastv"] <= value["full"]
    swept = [
        metrics(runs, "fixed_drop", "language_gflops", {"layer": layer, **at})["value"].item() for layer in range(3)
    ]
    assert swept == sorted(swept)
    assert swept[2] == metrics(runs, "kcenter", "language_gflops", at)["value"].item()


def test_random_objects_hit_and_radius_are_known_at_the_ends(runs, tmp_path):
    stage = context(runs, tmp_path, "random", budgets=(144,))
    evaluate(stage)
    frame = pl.read_parquet(stage.output / "metrics.parquet")
    assert frame.filter(pl.col("metric") == "objects_hit")["value"].to_list() == pytest.approx([100] * 12)
    assert frame.filter(pl.col("metric") == "covering_radius")["value"].to_list() == [0] * 12
    assert metrics(runs, "random", "covering_radius", {"tokens": 14})["value"].min() >= 0


def test_attention_to_the_picture_starts_in_every_layer_as_a_share(runs):
    for arm, count in (("full", 144), ("fixed_drop", 14), ("fixed_drop", 48)):
        for layer in range(2):
            share = metrics(runs, arm, "text_to_visual", {"layer": layer, "tokens": count})["value"].item()
            assert 0 < share < 1
    fallen = metrics(runs, "fixed_drop", "fallen_by_type").filter(pl.col("at").str.contains("tokens=14"))
    sums = fallen.group_by(pl.col("at").str.extract(r"type=(\w+)")).agg(pl.col("value").sum())["value"]
    assert sums.to_list() == pytest.approx([100] * len(sums))


def test_tuning_leaves_random_numbers_of_tokens_and_changes_the_base(runs):
    tuned = load_model(directory(runs, "train", "dropout_full", "token-dropout")).state_dict()
    base = load_model(runs / "bases" / "vlm-base").state_dict()
    assert any(not torch.equal(tuned[name], base[name]) for name in base)
    assert metrics(runs, "dropout_kcenter", "accuracy", variant="token-dropout").height > 0


def test_training_and_evaluation_give_the_same_bytes_twice(runs, tmp_path):
    stage = context(runs, tmp_path / "train", "dropout_full", "train", "token-dropout")
    reset(0)
    train(stage)
    for arm in ("random", "todre", "fixed_drop"):
        again = context(runs, tmp_path / arm, arm)
        evaluate(again)
        for name in ("metrics.parquet",):
            assert (again.output / name).read_bytes() == (directory(runs, "evaluate", arm) / name).read_bytes()
    first = directory(runs, "train", "dropout_full", "token-dropout")
    assert (first / "model.safetensors").read_bytes() == (stage.output / "model.safetensors").read_bytes()


def test_time_is_logged_and_stays_out_of_what_is_judged(runs):
    for arm in ("full", "kcenter", "todre", "stage2_only"):
        frame = pl.read_parquet(directory(runs, "evaluate", arm, part="log") / TIMINGS)
        assert (frame["median milliseconds"] > 0).all()
        assert sorted(frame["batch"].unique()) == [1, 2]
        assert not (directory(runs, "evaluate", arm) / TIMINGS).exists()


def test_figures_have_captions(runs):
    captions = {figure.name: figure.caption for figure in read_figures(runs / "results" / PAPER.slug / "shapes")}
    assert set(captions) == {"accuracy-by-budget", "migration", "drop-layers", "kept-tokens"}
    assert all(len(caption) > 100 for caption in captions.values())


def judged(folder: Path, accuracies: dict[str, dict[int, tuple[float, float]]], scenes: int = 40) -> JudgeContext:
    """Write runs of three seeds in which general and read questions are answered as given, and judge them."""
    picture = np.full((3, 48, 48), 120, np.uint8)
    evaluations = {}
    for arm, by_tokens in accuracies.items():
        for seed in range(3):
            table = MetricTable()
            for tokens, shares in by_tokens.items():
                for group, share in zip(("general", "read"), shares, strict=True):
                    spread = np.random.default_rng(seed).normal(0, 20, scenes)
                    values = share + spread - spread.mean() + seed
                    table.add_items("accuracy", values, unit="percent", at={"questions": group, "tokens": tokens})
            run = folder / f"{arm}-{seed}"
            run.mkdir()
            table.write(run)
            kept = {"scene": [0], "image": [encode_png(torch.from_numpy(picture))], "rows": [12]}
            kept |= {"attention": [[0.1] * 144], "kept": [list(range(0, 140, 10))]}
            pl.DataFrame(kept).write_parquet(run / "samples.parquet")
            evaluations[arm, seed] = run
    (folder / "judge").mkdir()
    return JudgeContext(PAPER, "shapes", "small", evaluations, {}, folder / "judge")


def test_accuracies_above_blind_and_what_is_retained_are_taken_from_the_base_of_each_seed(tmp_path):
    accuracies = {
        "full": {144: (90, 80)},
        "blind": {0: (40, 10)},
        "kcenter": {14: (80, 24)},
        "cls_topk": {14: (60, 31)},
    }
    tables = derive(judged(tmp_path, accuracies))
    for seed in range(3):
        frames = {arm: tables[arm, seed].frame() for arm in accuracies}

        def value(arm: str, metric: str, at: dict, frames=frames) -> float:
            own = frames[arm].filter(pl.col("metric") == metric, pl.col("at") == condition(at))
            return own["value"].mean()

        general, read = {"questions": "general", "tokens": 14}, {"questions": "read", "tokens": 14}
        assert value("kcenter", "above_blind", general) == pytest.approx(40)
        assert value("kcenter", "retained", general) == pytest.approx(80)
        assert value("cls_topk", "retained", read) == pytest.approx(30)
        assert value("full", "retained", {"questions": "read", "tokens": 144}) == pytest.approx(100)
        assert value("kcenter", "best_above_blind", {"tokens": 14}) == pytest.approx(40)
    worse = {**accuracies, "kcenter": {14: (55, 24)}}
    (tmp_path / "worse").mkdir()
    frame = derive(judged(tmp_path / "worse", worse))["kcenter", 0].frame()
    best = frame.filter(pl.col("metric") == "best_above_blind")["value"]
    assert best.mean() == pytest.approx(20)


def test_the_full_profile_is_the_papers_setting_and_has_the_papers_size():
    params = resolve(PAPER, "shapes", "todre", "full", "evaluate")
    assert params.budgets == (288,)
    with torch.device("meta"):
        encoder = PatchViT(image_side=336, patch_size=14, width=1024, layers=24, heads=16)
        language = CausalLM(SIZES["7b"])
        words = [f"piece {index}" for index in range(language.vocabulary_size - 3)]
        model = VLM(language=language, words=words, rows=24, feature_width=1024, merge=1, encoder="clip")
    assert params.check_layers == (7 * len(model.blocks) // 8,)
    assert params.budgets[0] == round(0.1 * 5 * model.rows**2)
    count = sum(parameter.numel() for part in (encoder, model) for parameter in part.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_only_the_arm_that_merges_depends_on_merging():
    study = load_study("token-reduction", "todre")
    merging = "components.compression.merging.tome"
    chosen = {
        arm: merging in study.components(resolve(PAPER, "shapes", arm, "small", "evaluate"), "evaluate")
        for arm in PAPER.arms_of("shapes")
    }
    assert [arm for arm, own in chosen.items() if own] == ["tome_merge"]


def test_seeds_are_asked_on_bases_of_their_own(runs, tmp_path):
    stage = replace(context(runs, tmp_path, "kcenter"), seed=2)
    assert seeing(stage).model.encoder == "shapes-vit-s2"
