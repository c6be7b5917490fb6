"""The stages of siamese-attribution at the smoke profile, and what they must say where the answer is known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

from components.analysis.attribution_groups import LabelledPair
from components.encoders.hub import PUBLISHED, build
from components.encoders.random_sentence import word_piece_tokenizer
from components.encoders.sentence import load_sentence_encoder
from components.errors import TesseraError
from components.finetune.siamese import UpperLayers
from components.metrics.tables import MetricTable
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.judge import judge
from flows.studies.analysis import standin
from flows.studies.analysis.siamese_attribution import encoders, explanations, groups, pairs, scored
from flows.studies.analysis.siamese_attribution.evaluate import evaluate
from flows.studies.analysis.siamese_attribution.judge import derive
from flows.studies.analysis.siamese_attribution.params import METRICS, EvaluateParams, TrainParams
from flows.studies.analysis.siamese_attribution.train import _Passes, train
from flows.studies.context import JudgeContext, StageContext

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("siamese-attribution")
VARIANT, SEED = PAPER.canonical, 0


@dataclass
class Runs:
    inputs: dict[str, Path]
    trainings: dict[str, Path]
    evaluations: dict[str, Path]

    def metrics(self, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[arm] / "metrics.parquet")

    def values(self, arm: str, metric: str, at: str = "") -> list[float]:
        return self.metrics(arm).filter(pl.col("metric") == metric, pl.col("at") == at)["value"].to_list()


def context(kind: str, arm: str, inputs, output: Path, seed: int = SEED) -> StageContext:
    params = resolve(PAPER, VARIANT, arm, "smoke", kind)
    parts = (output / name for name in ("run", "log", "checkpoint"))
    return StageContext(kind, PAPER.slug, VARIANT, arm, seed, "smoke", params, inputs, *parts)


def run_stage(kind: str, arm: str, inputs: dict[str, Path], output: Path) -> Path:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    reset(SEED)
    {"train": train, "evaluate": evaluate}[kind](context(kind, arm, inputs, output))
    return output / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    inputs = {}
    for name in PAPER.variants[VARIANT].data:
        inputs[f"data/{name}"] = root / name
        inputs[f"data/{name}"].mkdir()
        standin.make(name, inputs[f"data/{name}"])
    trainings, evaluations = {}, {}
    for arm, declared in PAPER.arms_of(VARIANT).items():
        given = dict(inputs)
        if declared.trains:
            trainings[arm] = run_stage("train", arm, inputs, root / f"train-{arm}")
        if owner := PAPER.model_of(arm):
            trainings[arm] = given["train"] = trainings[owner]
        evaluations[arm] = run_stage("evaluate", arm, given, root / f"evaluate-{arm}")
    return Runs(inputs, trainings, evaluations)


@pytest.fixture(scope="module")
def judged(runs, tmp_path_factory) -> tuple[Path, dict[tuple[str, int], MetricTable]]:
    """The folder that the judge wrote, and the metrics that it derived."""
    output, derived = tmp_path_factory.mktemp("judged"), {}
    evaluations = {(arm, SEED): run for arm, run in runs.evaluations.items()}
    trainings = {(arm, SEED): run for arm, run in runs.trainings.items()}
    stage = JudgeContext(PAPER, VARIANT, "smoke", evaluations, trainings, output)
    judge(stage, {"git_commit": "b" * 40, "machine": {}}, lambda stage: derived.update(derive(stage)) or derived)
    return output, derived


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs, judged):
    frames = [runs.metrics(arm) for arm in runs.evaluations] + [table.frame() for table in judged[1].values()]
    for frame in frames:
        for metric, unit in frame.select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


def test_every_claim_finds_what_it_names_and_the_figures_are_drawn_with_captions(judged):
    record = json.loads((judged[0] / "verdicts.json").read_text())
    assert [claim["id"] for claim in record["claims"]] == [claim.id for claim in PAPER.claims]
    assert all(claim["tests"] for claim in record["claims"])
    figures = list((judged[0] / "figures").iterdir())
    assert {path.stem for path in figures} == {"matrices", "errors", "shares", "words", "quality"}
    assert all("<dc:title>" in path.read_text() for path in figures)


@pytest.mark.parametrize("arm", ["integrated_jacobians", "shifted_finetuned"])
def test_a_stage_gives_the_same_bytes_twice(runs, arm, tmp_path):
    again = run_stage("train", arm, runs.inputs, tmp_path / "train")
    evaluated = run_stage("evaluate", arm, {**runs.inputs, "train": again}, tmp_path / "evaluate")
    for first, second in ((runs.trainings[arm], again), (runs.evaluations[arm], evaluated)):
        files = sorted(path.name for path in first.iterdir())
        assert files == sorted(path.name for path in second.iterdir())
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_ways_to_explain_are_asked_about_the_same_pairs_and_keep_their_sums(runs):
    arms = ("gradient_x_input", "last_layer_dot", "integrated_gradients_one_side", "random_encoder")
    stored = explanations.read_matrices(runs.trainings["integrated_jacobians"])
    for arm in arms:
        found = explanations.read_matrices(runs.evaluations[arm])
        assert list(found) == list(stored)
        assert all(each.matrix.shape == stored[name].matrix.shape for name, each in found.items())
    assert all(each.error < 1e-6 for each in explanations.read_matrices(runs.evaluations["last_layer_dot"]).values())
    assert max(each.error for each in stored.values()) < 0.1
    assert runs.values("uniform_null", "pairs_needed") == pytest.approx([0.8])
    assert runs.values("integrated_gradients_one_side", "pair_information") == pytest.approx([0] * 3, abs=1e-12)
    assert min(runs.values("integrated_jacobians", "pair_information")) > 0.01


def test_more_points_leave_a_smaller_error_and_one_leaves_more(runs):
    def error(arm: str, points: int) -> float:
        (value,) = runs.values(arm, "completeness_error", f"layer=5,points={points},rule=right")
        return value

    assert error("integrated_jacobians", 50) < 0.3 * error("integrated_jacobians", 5)
    assert error("gradient_x_input", 1) > 5 * error("integrated_jacobians", 50)


def test_a_tuned_shifted_encoders_attributions_add_up_to_its_cosine(runs):
    (error,) = runs.values("shifted_explained", "completeness_error", "layer=5,points=50,rule=right")
    assert error < 0.01
    assert runs.values("shifted_finetuned", "reference_term") == pytest.approx([0], abs=1e-6)
    assert runs.values("plain_finetuned", "reference_term")[0] > 0.1


def test_samples_of_different_seeds_have_no_pair_in_common_and_pairs_are_alike_enough(runs):
    encoder = load_sentence_encoder(runs.inputs["data/all-minilm-l6-v2"])
    params = TrainParams(longest=14, pairs=3, error_pairs=2, samples=2, least_similarity=0.05)
    samples = [pairs.sample(runs.inputs["data/ud"], encoder, params, seed) for seed in (0, 1, 2)]
    names = [{pair.name for pair in each} for each in samples]
    assert not names[0] & names[1]
    assert names[0] == names[2]
    for pair in samples[0]:
        assert pair.first.text != pair.second.text
        assert max(len(pair.first.ids), len(pair.second.ids)) <= 14
        assert [pair.first.forms[word] for word in pair.first.word if word >= 0]
    with pytest.raises(TesseraError, match="need 2000"):
        pairs.sample(runs.inputs["data/ud"], encoder, params.model_copy(update={"pairs": 1000}), 0)


def test_pairs_come_back_from_their_table_as_they_were(runs, tmp_path):
    read = pairs.read(runs.trainings["integrated_jacobians"])
    pairs.write(read, tmp_path)
    assert pairs.read(tmp_path) == read
    pieces = [piece for pair in read for piece in pair.first.pieces]
    assert {"[CLS]", "[SEP]"} <= set(pieces)


def test_held_out_pairs_share_no_sentence_with_those_that_are_tuned_on(runs):
    params = resolve(PAPER, VARIANT, "plain_finetuned", "smoke", "train")
    tuned_on, held = (scored.read(runs.inputs["data/sts"], params, test=test) for test in (False, True))
    assert len(held.names) == params.test_pairs == 24 - len(tuned_on.names)
    assert not {*tuned_on.first, *tuned_on.second} & {*held.first, *held.second}
    assert min(held.target) >= 0
    assert max(*held.target, *tuned_on.target) == 1


def test_rows_of_the_rank_correlation_have_it_as_their_mean():
    generator = np.random.default_rng(0)
    target = generator.integers(0, 6, 40) / 5
    similarity = target + generator.normal(size=40)
    table = MetricTable()
    scored.add_agreement(table, similarity, scored.ScoredPairs(list(range(40)), [], [], target.astype(np.float32)))
    expected = spearmanr(similarity, target.astype(np.float32)).statistic
    assert table.frame()["value"].mean() == pytest.approx(100 * expected)
    assert table.frame()["value"].n_unique() > 20


def test_both_tunings_of_a_seed_see_the_same_pairs_and_every_pair_once_a_pass():
    order = _Passes(10, 4, seed=3)
    rows = torch.cat([order.rows(step) for step in range(5)])
    assert rows[:10].sort().values.tolist() == rows[10:].sort().values.tolist() == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert torch.equal(_Passes(10, 4, seed=3).rows(2), order.rows(2))
    assert not torch.equal(torch.cat([_Passes(10, 4, seed=4).rows(step) for step in range(5)]), rows)


def test_random_layers_leave_the_embeddings_and_differ_by_seed(runs, tmp_path):
    published, one, other = (
        make(context("evaluate", "random_encoder", runs.inputs, tmp_path, seed))
        for make, seed in ((encoders.published, 0), (encoders.random_layers, 0), (encoders.random_layers, 1))
    )
    assert torch.equal(published.embeddings.word.weight, one.embeddings.word.weight)
    weights = [each.layers[2].mlp_input.weight for each in (published, one, other)]
    assert not any(torch.equal(weights[a], weights[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_pairs_that_hold_a_group_have_it_on_both_sides():
    def pair(a, b):
        return LabelledPair(np.ones((len(a), len(b))), np.array(a), np.array(b))

    found = [pair(["VERB", "X"], ["VERB"]), pair(["VERB"], ["X"]), pair(["AUX"], ["VERB", "AUX"])]
    assert groups.holding(found, {"VERB"}) == 1
    assert groups.holding(found, {"VERB", "AUX"}) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"share_points": 7}, "one of midpoints"), ({"error_pairs": 31}, "must not fall"), ({"longest": 2}, "equal to 3")],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluateParams(**settings)


def test_the_sizes_of_the_small_profile_are_those_of_the_specification():
    explain = resolve(PAPER, VARIANT, "integrated_jacobians", "small", "evaluate")
    assert (explain.layer, explain.points, explain.pairs * explain.samples) == (5, (5, 10, 25, 50), 90)
    assert (explain.error_pairs * explain.samples, explain.longest, explain.share_points) == (30, 12, 10)
    tune = resolve(PAPER, VARIANT, "shifted_finetuned", "small", "train")
    assert (tune.tuned_from, tune.batch, tune.steps, tune.learning_rate) == (4, 16, 280, 5e-5)
    assert tune.test_pairs == 581
    plain = resolve(PAPER, VARIANT, "plain_finetuned", "small", "train")
    assert plain.model_copy(update={"shifted": True}) == tune


def test_the_full_profile_builds_the_encoders_of_the_paper():
    expected = PAPER.profiles["full"].expect
    for arm, declared in PAPER.arms_of(VARIANT).items():
        params = resolve(PAPER, VARIANT, arm, "full", "evaluate")
        described = PUBLISHED[f"sentence-transformers/{params.encoder}"]
        assert max(params.layer, *params.deep_layers) < described["num_hidden_layers"]
        assert params.tuned_from == 0 or not declared.trains
    for name, key in (("all-mpnet-base-v2", "mpnet"), ("all-distilroberta-v1", "distilroberta")):
        with torch.device("meta"):
            encoder = build(PUBLISHED[f"sentence-transformers/{name}"], word_piece_tokenizer(["a"]))
            upper = UpperLayers(encoder, 0, shifted=True)
        count = sum(parameter.numel() for parameter in encoder.parameters())
        assert count == pytest.approx(expected[f"parameters_of_{key}"], rel=0.01)
        assert len(upper.layers) == encoder.config.layers
