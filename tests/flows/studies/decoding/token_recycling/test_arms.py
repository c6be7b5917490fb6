"""The stages of the paper at the smoke profile, and what they must say whatever the language models are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.language.causal_lm import CausalLM
from components.language.llama import SIZES
from components.language.speculative import adjacency
from components.language.speculative.decoding import decode
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import JudgeContext, StageContext
from flows.studies.decoding import standin
from flows.studies.decoding.token_recycling import judge, prompts
from flows.studies.decoding.token_recycling.evaluate import DECODINGS, evaluate
from flows.studies.decoding.token_recycling.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.decoding.token_recycling.train import SETS, read_matrix, read_prompts, train

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("token-recycling")
VARIANT = PAPER.canonical
SEED = 0


@dataclass
class Runs:
    inputs: dict[str, Path]
    trainings: dict[str, Path]
    evaluations: dict[str, Path]

    def metrics(self, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[arm] / "metrics.parquet")

    def values(self, arm: str, metric: str, **at) -> list[float]:
        frame = self.metrics(arm).filter(pl.col("metric") == metric, pl.col("at") == condition(at))
        return frame["value"].to_list()


def context(kind: str, arm: str, inputs: dict[str, Path], output: Path, seed: int = SEED, **changes) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    params = resolve(PAPER, VARIANT, arm, "smoke", kind, changes)
    return StageContext(
        kind, PAPER.slug, VARIANT, arm, seed, "smoke", params, inputs,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip


def run_stage(kind: str, arm: str, inputs: dict[str, Path], output: Path, seed: int = SEED, **changes) -> Path:
    stage = context(kind, arm, inputs, output, seed, **changes)
    reset(seed)
    {"train": train, "evaluate": evaluate}[kind](stage)
    return stage.output


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    root, given = tmp_path_factory.mktemp("standins"), {}
    declared = PAPER.variants[VARIANT]
    for kind, names, make in (("data", declared.data, standin.make), ("bases", declared.bases, standin.make_base)):
        for name in names:
            (root / name).mkdir()
            make(name, root / name)
            given[f"{kind}/{name}"] = root / name
    return given


@pytest.fixture(scope="module")
def runs(inputs, tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    arms = PAPER.arms_of(VARIANT)
    trainings = {
        arm: run_stage("train", arm, inputs, root / f"train-{arm}") for arm, declared in arms.items() if declared.trains
    }
    evaluations = {
        arm: run_stage("evaluate", arm, {**inputs, "train": trainings[PAPER.model_of(arm)]}, root / f"evaluate-{arm}")
        for arm in arms
    }
    return Runs(inputs, trainings, evaluations)


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    for arm in runs.evaluations:
        for metric, unit in runs.metrics(arm).select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


def test_every_metric_that_a_claim_names_is_measured_where_it_names_it(runs):
    for claim in PAPER.claims:
        for test in (*claim.gates, *claim.tests):
            for arm in test.arms:
                measured = set(runs.metrics(arm).select("metric", "at").unique().rows())
                assert (test.metric, condition(test.at)) in measured, (claim.id, test.metric, arm)


def test_in_double_precision_no_arm_differs_from_plain_decoding(runs):
    for arm in ("tr_hot", "tr_cold", "chain", "pld", "greedy"):
        for base in ("code", "math"):
            assert runs.values(arm, "mismatching_sequences", base=base, precision="float64") == [0.0]


def test_all_arms_spell_the_same_tokens_and_their_passes_add_up_to_them(runs):
    expected = None
    for arm, run in runs.evaluations.items():
        frame = pl.read_parquet(run / DECODINGS)
        assert (frame["accepted"].list.sum() == frame["tokens"].list.len()).all()
        assert (frame["accepted"].list.len() == frame["texts"].list.len()).all()
        assert frame["accepted"].explode().min() >= 1
        expected = expected or frame["tokens"].to_list()
        assert frame["tokens"].to_list() == expected, arm


def test_mat_is_all_new_tokens_over_all_forward_passes_and_1_without_drafts(runs):
    for arm in ("tr_hot", "pld"):
        frame = pl.read_parquet(runs.evaluations[arm] / DECODINGS).filter(pl.col("set") == "judged")
        for (base,), part in frame.group_by("model"):
            ratio = part["accepted"].list.sum().sum() / part["accepted"].list.len().sum()
            assert np.mean(runs.values(arm, "mat", base=base)) == pytest.approx(ratio, rel=1e-12)
    assert runs.values("greedy", "mat", base="code") == [1.0, 1.0]
    assert runs.values("greedy", "accepted_share", base="code", accepted=1) == [1.0]


def test_arms_of_one_seed_have_the_same_prompts_so_that_they_pair(runs):
    named = {
        arm: runs.metrics(arm).filter(pl.col("metric") == "mat").select("at", "sample").rows()
        for arm in runs.evaluations
    }
    assert len({str(rows) for rows in named.values()}) == 1


def test_every_arm_drafts_what_it_says(runs):
    nodes = {arm: runs.values(arm, "draft_nodes", base="code")[0] for arm in runs.evaluations}
    assert [nodes[arm] for arm in ("tr_hot", "tree_8", "tree_24", "tree_48")] == [80, 8, 24, 48]
    assert [nodes[arm] for arm in ("chain", "pld", "greedy")] == [6, 10, 0]
    assert nodes["k_2"] < nodes["k_4"] < 80
    sizes = [runs.values(arm, "matrix_bytes", base="code")[0] for arm in ("tr_hot", "k_4", "k_2")]
    assert sizes == [301 * k * 4 for k in (8, 4, 2)]
    assert runs.values("tr_frozen", "rows_touched", base="code") == [0.0]
    assert runs.values("tr_bigram", "rows_written", base="code") == [0.0]
    assert runs.values("tr_hot", "rows_written", base="code")[0] > 1


def test_the_warm_matrix_is_what_the_method_leaves_after_the_next_sets_prompts(runs, tmp_path):
    other = run_stage("train", "greedy", runs.inputs, tmp_path, seed=1)
    stage = context("evaluate", "tr_hot", runs.inputs, tmp_path / "stage")
    for base in ("code", "math"):
        language = prompts.load(stage, base)
        drafter = adjacency.build(language.model.vocabulary_size)
        for prompt, plain, _ in read_prompts(other, base, "judged"):
            decoded = decode(language.model, prompt.tokens, len(plain), drafter)
            assert decoded.tokens == plain
        assert torch.equal(read_matrix(runs.trainings["tr_warm"], base), drafter.matrix.table)


def test_where_too_few_prompts_qualify_all_arms_draw_the_same_coupled_sample(inputs, tmp_path):
    changes = {"fewest_judged": 4, "float64": True}  # of three candidates
    trained = run_stage("train", "greedy", inputs, tmp_path / "train", fewest_judged=4)
    assert pl.read_parquet(trained / SETS)["coupled"].all()
    for base in ("code", "math"):
        judged, unfiltered = (read_prompts(trained, base, kind) for kind in ("judged", "unfiltered"))
        assert [prompt.tokens for prompt, *_ in judged] == [prompt.tokens for prompt, *_ in unfiltered]
        assert all(prompt.noise is not None for prompt, *_ in judged)
        assert all(prompt.noise is None for prompt, *_ in unfiltered)
        assert [plain for _, plain, _ in judged] != [plain for _, plain, _ in unfiltered]
    for arm in ("tr_hot", "pld"):
        run = run_stage("evaluate", arm, {**inputs, "train": trained}, tmp_path / arm, **changes)
        frame = pl.read_parquet(run / "metrics.parquet").filter(pl.col("metric") == "mismatching_sequences")
        assert frame.filter(pl.col("at").str.ends_with("float64"))["value"].to_list() == [0.0, 0.0]


def test_a_stage_gives_the_same_bytes_twice(runs, tmp_path):
    again = run_stage("train", "tr_warm", runs.inputs, tmp_path / "train")
    assert_same(again, runs.trainings["tr_warm"])
    given = {**runs.inputs, "train": runs.trainings["greedy"]}
    assert_same(run_stage("evaluate", "tr_hot", given, tmp_path / "evaluate"), runs.evaluations["tr_hot"])


def assert_same(one: Path, two: Path) -> None:
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert all(path.read_bytes() == (two / path.name).read_bytes() for path in one.iterdir())


def test_a_single_precision_difference_is_reported_with_the_distance_of_the_two_best(runs, tmp_path):
    edited = tmp_path / "train"
    edited.mkdir()
    for path in runs.trainings["greedy"].iterdir():
        (edited / path.name).write_bytes(path.read_bytes())
    frame = pl.read_parquet(edited / "prompts.parquet")
    plain = frame["plain"].to_list()
    plain[0] = [*plain[0][:3], (plain[0][3] + 1) % 300, *plain[0][4:]]
    frame.with_columns(pl.Series("plain", plain)).write_parquet(edited / "prompts.parquet")
    run = run_stage("evaluate", "tr_hot", {**runs.inputs, "train": edited}, tmp_path / "evaluate")
    frame = pl.read_parquet(run / "metrics.parquet")
    wrong = frame.filter(pl.col("metric") == "mismatching_sequences", pl.col("at") == "base=code,precision=float32")
    assert wrong["value"].to_list() == [1.0]
    gap = frame.filter(pl.col("metric") == "first_difference_gap")["value"].to_list()
    (prompt, *_), *_ = read_prompts(runs.trainings["greedy"], "code", "judged")
    language = prompts.load(context("evaluate", "tr_hot", runs.inputs, tmp_path / "stage"), "code")
    best = language.model.along(torch.tensor([[*prompt.tokens, *plain[0][:3]]]))[0, -1].topk(2).values
    assert gap == [pytest.approx(float(best[0] - best[1]), abs=1e-5)]


def test_times_stand_in_the_log_and_not_among_the_results(runs):
    run = runs.evaluations["greedy"]
    timed = pl.read_parquet(run.parent / "log" / "timings.parquet")
    alone = timed.filter(pl.col("what") == "seconds per forward alone", pl.col("model") == "code")
    assert alone["nodes"].to_list() == [1, 9, 25, 49, 81]
    assert timed.filter(pl.col("what") == "modelled speed")["value"].to_list() == [1.0, 1.0], "one token a pass"
    assert (timed["value"] > 0).all()
    assert sorted(path.name for path in run.iterdir()) == ["decodings.parquet", "metrics.parquet"]


def test_the_modelled_speed_is_tokens_a_pass_at_the_price_of_the_passs_nodes(runs):
    run = runs.evaluations["tr_hot"]
    timed = pl.read_parquet(run.parent / "log" / "timings.parquet").filter(pl.col("model") == "math")
    seconds = dict(timed.filter(pl.col("what") == "seconds per forward alone").select("nodes", "value").iter_rows())
    decoded = pl.read_parquet(run / "decodings.parquet").filter(pl.col("model") == "math", pl.col("set") == "judged")
    accepted = decoded["accepted"].explode().mean()
    speed = timed.filter(pl.col("what") == "modelled speed").row(0, named=True)
    assert speed["nodes"] == 81
    assert speed["value"] == pytest.approx(accepted * seconds[1] / seconds[81])


def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(runs, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        evaluations = {(arm, SEED): run for arm, run in runs.evaluations.items()}
        judge.derive(JudgeContext(PAPER, VARIANT, "smoke", evaluations, {}, tmp_path / name))
    one, two = (tmp_path / name / "figures" for name in ("one", "two"))
    expected = {"accepted-by-arm.svg", "accepted-by-size.svg", "acceptance.svg", "passes.svg"}
    assert {path.name for path in one.iterdir()} == expected
    for path in one.iterdir():
        assert "<dc:title>" in path.read_text()
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_full_profile_is_a_vicuna_of_7_billion_parameters():
    with torch.device("meta"):
        model = CausalLM(SIZES["7b"])
    expected = PAPER.profiles["full"].expect["parameters"]
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(expected, rel=0.01)
    assert resolve(PAPER, VARIANT, "tr_hot", "full", "evaluate").new_tokens == 1024


def test_arms_choose_only_the_components_they_use():
    package = "components.language.speculative"
    assert components(EvaluateParams(drafter="prompt_lookup"), "evaluate") == (f"{package}.prompt_lookup",)
    assert components(TrainParams(), "train") == ()
    assert components(TrainParams(warm_matrix=True), "train") == (f"{package}.adjacency",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "warm"}, "add warm_matrix: true"),
        ({"shortest_prompt": 9, "longest_prompt": 8}, "shortest_prompt <= longest_prompt"),
        ({"judged_prompts": 9, "candidates": 8}, "there are 8 candidates"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluateParams(**settings)
