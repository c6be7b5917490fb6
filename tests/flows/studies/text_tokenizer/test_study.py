"""The stages of tokenization theory at the smoke profile, and what they must say where the answer is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.data.switching_chain import character_entropy
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import JudgeContext, StageContext
from flows.studies.text_tokenizer import standin
from flows.studies.text_tokenizer.evaluate import evaluate
from flows.studies.text_tokenizer.looks import Looks
from flows.studies.text_tokenizer.markov_sources import chain_of
from flows.studies.text_tokenizer.params import METRICS, TrainParams, components
from flows.studies.text_tokenizer.tokenization_theory import judge
from flows.studies.text_tokenizer.train import train
from flows.studies.text_tokenizer.transformer import build

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("tokenization-theory")
SEED = 0


@dataclass
class Runs:
    root: Path
    trainings: dict[tuple[str, str], Path]
    evaluations: dict[tuple[str, str], Path]

    def metrics(self, arm: str, variant: str = "chains") -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[variant, arm] / "metrics.parquet")

    def value(self, arm: str, metric: str, at: str = "", variant: str = "chains") -> float:
        found = self.metrics(arm, variant).filter(pl.col("metric") == metric, pl.col("at") == at)
        return found["value"].item()


def run_stage(kind: str, variant: str, arm: str, inputs: dict[str, Path], output: Path) -> Path:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    params = resolve(PAPER, variant, arm, "smoke", kind)
    stage = StageContext(
        kind, PAPER.slug, variant, arm, SEED, "smoke", params, inputs,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip
    reset(SEED)
    {"train": train, "evaluate": evaluate}[kind](stage)
    return output / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    (root / "wikitext2").mkdir()
    standin.make("wikitext2", root / "wikitext2")
    trainings, evaluations = {}, {}
    for variant, declared in PAPER.variants.items():
        inputs = {f"data/{name}": root / name for name in declared.data}
        for arm in PAPER.arms_of(variant):
            given = dict(inputs)
            if PAPER.model_of(arm):
                trainings[variant, arm] = run_stage("train", variant, arm, inputs, root / f"train-{variant}-{arm}")
                given["train"] = trainings[variant, arm]
            evaluations[variant, arm] = run_stage("evaluate", variant, arm, given, root / f"evaluate-{variant}-{arm}")
    return Runs(root, trainings, evaluations)


def judged(runs: Runs, variant: str, output: Path) -> JudgeContext:
    evaluations = {(arm, SEED): run for (owner, arm), run in runs.evaluations.items() if owner == variant}
    trainings = {(arm, SEED): run for (owner, arm), run in runs.trainings.items() if owner == variant}
    output.mkdir()
    return JudgeContext(PAPER, variant, "smoke", evaluations, trainings, output)


@pytest.fixture(scope="module")
def derived(runs, tmp_path_factory) -> dict:
    return judge.derive(judged(runs, "chains", tmp_path_factory.mktemp("judged") / "chains"))


def tables(runs: Runs, derived: dict) -> dict[str, pl.DataFrame]:
    found = {arm: [runs.metrics(arm)] for variant, arm in runs.evaluations if variant == "chains"}
    for (arm, _), table in derived.items():
        found[arm].append(table.frame())
    return {arm: pl.concat(frames) for arm, frames in found.items()}


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs, derived):
    frames = [pl.read_parquet(run / "metrics.parquet") for run in runs.evaluations.values()]
    frames += [table.frame() for table in derived.values()]
    for metric, unit in pl.concat(frames).select("metric", "unit").unique().rows():
        assert METRICS[metric].unit == unit, metric
    assert set(pl.concat(frames)["metric"]) == set(METRICS)


def test_every_metric_that_a_claim_names_is_measured_where_it_names_it(runs, derived):
    frames = tables(runs, derived)
    for claim in PAPER.claims:
        for test in (member for each in claim.tests for member in getattr(each, "all_of", (each,))):
            values = getattr(test, "values", None)
            places = [{**(test.at or {}), test.along: value} for value in values] if values else [test.at]
            for arm in test.arms:
                measured = set(frames[arm].select("metric", "at").unique().rows())
                for at in places:
                    assert (test.metric, condition(at)) in measured, (claim.id, test.metric, arm, at)


def test_the_oracle_and_the_character_model_have_the_closed_forms_beside_them(runs):
    for source in ("k1", "k2", "k4", "skewed", "general"):
        chain = chain_of(source, SEED)
        at = f"source={source}"
        assert runs.value("oracle", "entropy_rate", at) == pytest.approx(chain.entropy_rate())
        assert runs.value("oracle", "character_entropy", at) == pytest.approx(character_entropy(chain))
        assert runs.value("oracle", "nats_per_character", at) == pytest.approx(chain.entropy_rate(), abs=0.15)
        loss = runs.value("char_unigram", "nats_per_character", f"{at},vocabulary=2")
        assert loss == pytest.approx(character_entropy(chain), abs=0.1)


def test_arms_of_one_seed_predict_the_same_text(runs):
    """With two tokens every dictionary is the alphabet, so every encoder loses the same."""
    arms = ("char_unigram", "lzw_unigram", "bpe_unigram", "lzw_minimal_encoder", "bpe_greedy_encoder")
    for source in ("k1", "k2"):
        at = f"source={source},vocabulary=2"
        assert len({runs.value(arm, "nats_per_character", at) for arm in arms}) == 1
        excess = runs.value("lzw_unigram", "excess_nats", at)
        rate = runs.value("oracle", "entropy_rate", f"source={source}")
        assert excess == pytest.approx(runs.value("lzw_unigram", "nats_per_character", at) - rate)


def test_the_fewest_tokens_are_no_more_than_the_longest_matches_take(runs):
    for minimal, greedy in (("lzw_minimal_encoder", "lzw_unigram"), ("bpe_minimal_encoder", "bpe_greedy_encoder")):
        for size in (8, 32, 128):
            at = f"source=k2,vocabulary={size}"
            assert runs.value(minimal, "tokens_per_character", at) <= runs.value(greedy, "tokens_per_character", at)


def test_real_text_is_shorter_in_larger_dictionaries(runs):
    for arm in ("text_bpe", "text_unigram", "text_wordpiece"):
        small, large = (runs.value(arm, "tokens_per_character", f"vocabulary={size}", "wikitext2") for size in (40, 60))
        assert large < small < 1
        assert runs.value(arm, "dictionary_size", "vocabulary=40", "wikitext2") == 40


@pytest.mark.parametrize("arm", ["bpe_k2", "lzw_k2", "fixed_ngram_unigram"])
def test_a_stage_gives_the_same_bytes_twice(runs, arm, tmp_path):
    pairs, given = [], {}
    if ("chains", arm) in runs.trainings:
        given["train"] = run_stage("train", "chains", arm, {}, tmp_path / "train")
        pairs.append((runs.trainings["chains", arm], given["train"]))
    again = run_stage("evaluate", "chains", arm, given, tmp_path / "evaluate")
    for first, second in (*pairs, (runs.evaluations["chains", arm], again)):
        files = sorted(path.name for path in first.iterdir())
        assert files == sorted(path.name for path in second.iterdir())
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(runs, tmp_path):
    expected = {
        "chains": {"gaps.svg", "unigram-losses.svg", "encoders.svg", "behaviour.svg"},
        "wikitext2": {"sizes.svg"},
    }
    for variant, names in expected.items():
        for copy in ("one", "two"):
            judge.derive(judged(runs, variant, tmp_path / f"{variant}-{copy}"))
        one, two = (tmp_path / f"{variant}-{copy}" / "figures" for copy in ("one", "two"))
        assert {path.name for path in one.iterdir()} == names
        for path in one.iterdir():
            assert "<dc:title>" in path.read_text()
            assert path.read_bytes() == (two / path.name).read_bytes()


def looks(gaps: list[float]) -> Looks:
    series = {
        "step": np.arange(1, len(gaps) + 1),
        "characters": 100.0 * np.arange(1, len(gaps) + 1),
        "nats_per_character": 0.5 + 0.2 * np.array(gaps),
        "kl_unigram": np.zeros(len(gaps)),
        "kl_truth": np.zeros(len(gaps)),
    }
    return Looks(series, 0.5, 0.7)


def test_a_crossing_is_the_first_look_below_and_the_budget_where_there_is_none():
    seen = looks([1.0, 0.8, 0.45, 0.55, 0.2])
    assert seen.gap == pytest.approx([1.0, 0.8, 0.45, 0.55, 0.2])
    assert seen.characters_until(0.5, 500) == 300
    assert seen.characters_until(0.1, 500) == 500
    assert seen.gap_at(150) == pytest.approx(0.8)
    assert seen.gap_at(300) == pytest.approx(0.45)
    assert seen.gap_at(900) == pytest.approx(0.2)


def test_the_budgets_are_those_of_the_specification():
    for arm, steps in (("char_k1", 400), ("bpe_k1", 400), ("char_k2", 800), ("bpe_k4", 800), ("lzw_k2", 800)):
        params = resolve(PAPER, "chains", arm, "small", "train")
        assert (params.steps, params.batch, params.window_characters) == (steps, 16, 256)
        assert (params.width, params.layers, params.heads, params.learning_rate) == (64, 2, 4, 1e-3)
    params = resolve(PAPER, "chains", "lzw_unigram", "small", "evaluate")
    assert (params.tokenizer_characters, params.fit_characters, params.test_characters) == (
        200_000,
        2 * 10**6,
        2 * 10**6,
    )


def test_the_full_profile_builds_without_memory():
    params = resolve(PAPER, "chains", "bpe_k4", "full", "train")
    with torch.device("meta"):
        model = build(params, params.vocabulary_size, params.window_characters)
    assert len(model.transformer.blocks) == params.layers == 4
    assert model.embedding.weight.is_meta


def test_arms_choose_only_the_components_they_use():
    assert components(TrainParams(experiment="unigram", tokenizer="lzw"), "evaluate") == (
        "components.tokenizers.text.lzw",
    )
    assert components(TrainParams(experiment="text", tokenizer="unigram"), "train") == (
        "components.tokenizers.text.unigram",
    )
    assert components(TrainParams(experiment="transformer", tokenizer="characters"), "train") == ()
    assert components(TrainParams(experiment="oracle"), "evaluate") == ()
