"""The stages of the paper at the smoke profile, and what they must say where the answer is known."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.data.markov import read_chain
from components.metrics.tables import condition
from components.tokenizers.text import bpe
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import JudgeContext, StageContext
from flows.studies.decoding import chain_protocol, judge, sources, standin, text_protocol
from flows.studies.decoding.evaluate import evaluate
from flows.studies.decoding.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.decoding.train import build, train

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("tokenization-bias")
SEED = 0


@dataclass
class Runs:
    root: Path
    trainings: dict[tuple[str, str], Path]
    evaluations: dict[tuple[str, str], Path]

    def metrics(self, arm: str, variant: str = "markov") -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[variant, arm] / "metrics.parquet")

    def value(self, arm: str, metric: str, at: str = "") -> float:
        return self.metrics(arm).filter(pl.col("metric") == metric, pl.col("at") == at)["value"].item()


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
    data = {}
    for name in ("markov", "tinyshakespeare"):
        (root / name).mkdir()
        standin.make(name, root / name)
        data[f"data/{name}"] = root / name
    trainings, evaluations = {}, {}
    for variant, declared in PAPER.variants.items():
        inputs = {f"data/{name}": data[f"data/{name}"] for name in declared.data}
        for arm, declaration in PAPER.arms_of(variant).items():
            if declaration.trains:
                trainings[variant, arm] = run_stage("train", variant, arm, inputs, root / f"train-{variant}-{arm}")
        for arm in PAPER.arms_of(variant):
            given = dict(inputs)
            if owner := PAPER.model_of(arm):
                given["train"] = trainings[variant, owner]
            evaluations[variant, arm] = run_stage("evaluate", variant, arm, given, root / f"evaluate-{variant}-{arm}")
    return Runs(root, trainings, evaluations)


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    for _, run in runs.evaluations.items():
        for metric, unit in pl.read_parquet(run / "metrics.parquet").select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


def test_every_metric_that_a_claim_names_is_measured_where_it_names_it(runs):
    for claim in PAPER.claims:
        for test in claim.tests:
            for arm in test.arms:
                measured = set(runs.metrics(arm).select("metric", "at").unique().rows())
                assert (test.metric, condition(test.at)) in measured, (claim.id, test.metric, arm)


def test_exact_token_distributions_give_the_truth_and_untrained_networks_do_not(runs):
    assert runs.value("exact_token_model", "mae") < 1e-9
    assert runs.value("bpe_exact", "mae") < 1e-9
    assert runs.value("exact_direct", "mae") > 0.05
    assert runs.value("mpc", "mae") > 0.01


def test_corrected_probabilities_sum_to_1_and_without_truncation_they_do_not(runs):
    for arm in ("mpc", "mpc_x1", "bpe_cover", "char_model", "exact_token_model"):
        assert runs.value(arm, "mass_error") < 1e-6
    assert runs.value("no_truncation", "mass_error") > 1e-4


def test_the_correction_calls_the_model_once_per_token(runs):
    calls = pl.read_parquet(runs.evaluations["markov", "mpc"] / "calls.parquet")
    assert (calls["calls"] == calls["tokens"]).all()
    assert calls["strings"].value_counts().sort("strings").rows() == [("chain", 8), ("random", 8)]
    assert runs.value("mpc", "calls_excess", "strings=random") == -1


def test_a_straight_line_is_found_and_its_r2_is_the_squared_correlation():
    generator = np.random.default_rng(0)
    x = np.arange(1, 50)
    y = 0.4 * x + generator.standard_normal(49)
    slope, r2 = chain_protocol.straight_line(pl.Series(x), pl.Series(y))
    assert slope == pytest.approx(0.4, abs=0.05)
    assert r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-12)


def test_arms_of_one_seed_are_asked_in_the_same_contexts(runs):
    truth = [runs.metrics(arm).filter(pl.col("metric") == "truth")["value"].to_list() for arm in ("mpc", "bpe_direct")]
    items = [runs.metrics(arm)["sample"].drop_nulls().to_list() for arm in ("direct_prompting", "bpe_direct")]
    assert truth[0] == truth[1]
    assert items[0] == items[1]


@pytest.mark.parametrize("arm", ["mpc_x1", "bpe_cover"])
def test_a_stage_gives_the_same_bytes_twice(runs, arm, tmp_path):
    inputs = {"data/markov": runs.root / "markov"}
    again = run_stage("train", "markov", arm, inputs, tmp_path / "train")
    evaluated = run_stage("evaluate", "markov", arm, {**inputs, "train": again}, tmp_path / "evaluate")
    for first, second in ((runs.trainings["markov", arm], again), (runs.evaluations["markov", arm], evaluated)):
        files = sorted(path.name for path in first.iterdir())
        assert files == sorted(path.name for path in second.iterdir())
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def judged(runs: Runs, variant: str, output: Path) -> JudgeContext:
    evaluations = {(arm, SEED): run for (owner, arm), run in runs.evaluations.items() if owner == variant}
    trainings = {(arm, SEED): run for (owner, arm), run in runs.trainings.items() if owner == variant}
    output.mkdir()
    return JudgeContext(PAPER, variant, "smoke", evaluations, trainings, output)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("markov", {"transitions.svg", "data-size.svg", "calls.svg"}), ("tinyshakespeare", {"divergence.svg"})],
)
def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(runs, tmp_path, variant, expected):
    for name in ("one", "two"):
        judge.derive(judged(runs, variant, tmp_path / name))
    one, two = (tmp_path / name / "figures" for name in ("one", "two"))
    assert {path.name for path in one.iterdir()} == expected
    assert all("<dc:title>" in path.read_text() for path in one.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_full_profile_builds_gpt_2_small_without_its_embedding():
    params = resolve(PAPER, "markov", "mpc", "full", "train")
    expected = PAPER.profiles["full"].expect["parameters"]
    with torch.device("meta"):
        chain = sum(parameter.numel() for parameter in build(params, len(params.vocabulary)).parameters())
        text = sum(parameter.numel() for parameter in build(params, 50_257).parameters())
    assert chain == pytest.approx(expected, rel=0.01)
    assert text == pytest.approx(124e6, rel=0.05)


def test_arms_choose_only_the_components_they_use():
    assert components(TrainParams(tokenizer="bpe"), "train") == ("components.tokenizers.text.bpe",)
    exact = components(EvaluateParams(model="exact"), "evaluate")
    assert exact == ("components.tokenizers.text.max_prefix", "components.language.exact_token_model")
    assert "components.language.causal_lm" in components(EvaluateParams(), "evaluate")


def test_the_sizes_of_the_data_are_those_of_the_specification():
    sizes = {
        arm: (sources.shared(params.steps, params), sources.shared(params.characters, params))
        for arm in ("mpc_x1", "mpc_x4", "mpc", "bpe_cover")
        for params in [resolve(PAPER, "markov", arm, "small", "train")]
    }
    assert sizes == {
        "mpc_x1": (150, 400_000),
        "mpc_x4": (600, 1_600_000),
        "mpc": (2400, 6_400_000),
        "bpe_cover": (1200, 3_200_000),
    }


def test_maximum_prefix_correction_of_bpe_is_refused():
    with pytest.raises(ValueError, match="use query: cover"):
        EvaluateParams(tokenizer="bpe")


def test_chain_windows_are_the_first_tokens_of_texts_and_spell_the_wanted_characters(runs):
    chain = read_chain(runs.root / "markov", 1)
    tokenizer = MaxPrefixTokenizer(["A", "B", "AA", "BAB"])
    windows = sources.ChainWindows(chain, tokenizer, 20_000, 16, np.random.default_rng(0))
    lengths = np.array([len(token) for token in tokenizer.vocabulary])
    spelled = lengths[windows.tokens.numpy()].sum(1)
    assert spelled.sum() == windows.characters
    assert 20_000 <= windows.characters < 20_000 + spelled.max()
    again = sources.ChainWindows(chain, tokenizer, 40_000, 16, np.random.default_rng(0))
    assert torch.equal(again.tokens[: len(windows.tokens)], windows.tokens)
    first = windows.tokens[:, 0].bincount(minlength=4) / len(windows.tokens)
    assert first[1].item() == pytest.approx(
        chain.character_frequencies[1] - np.exp(chain.log_probability(np.array([[1, 0, 1]])))[0], abs=0.03
    )


def test_text_windows_are_encodings_of_the_text_from_the_start_of_a_piece(runs):
    directory = runs.root / "tinyshakespeare"
    tokenizer = sources.text_tokenizer(TrainParams(tokenizer="bpe", vocabulary_size=60), directory)
    text = sources.part(directory, "train")
    windows = sources.TextWindows(tokenizer, text, 12)
    starts = {match.start() for match in re.finditer(bpe.WORD_PIECES, text)}
    for window in windows.draw(50, torch.Generator().manual_seed(0)).tolist():
        spelled = tokenizer.decode(window)
        assert any(text.startswith(spelled, start) for start in starts)
        assert tokenizer.encode(spelled) == window
    with pytest.raises(sources.TooLittleText, match="at least 12"):
        sources.TextWindows(tokenizer, "the", 12)


def test_cuts_lie_where_they_say_in_the_encoding_of_the_longer_text(runs):
    directory = runs.root / "tinyshakespeare"
    tokenizer = sources.text_tokenizer(TrainParams(tokenizer="bpe", vocabulary_size=60), directory)
    text = sources.part(directory, "test")
    cuts = text_protocol.mixed_cuts(tokenizer, text, 20, 30, np.random.default_rng(0))
    tokens, pieces = tokenizer.encode_with_pieces(text)
    ends = set(np.cumsum([len(tokenizer.vocabulary[token]) for token in tokens]).tolist())
    starts = [
        0,
        *sorted(end for end, piece, after in zip(sorted(ends), pieces, pieces[1:], strict=False) if piece < after),
    ]
    for where, contexts in cuts.items():
        assert len(contexts) == 30
        for context in contexts:
            places = [start for start in starts if text.startswith(context, start)]
            assert any((start + len(context) in ends) == (where == "end") for start in places)


def test_the_bootstrap_has_the_variance_of_the_mean_error_over_contexts():
    generator = np.random.default_rng(0)
    truth = np.array([[0.3, 0.7], [0.6, 0.4]])
    first = 0.2 + truth[:, :1] + 0.05 * generator.standard_normal((2, 400))
    estimates = np.stack([first, 1 - first], axis=-1)
    # Far from the kink of the absolute value the error is a mean of independent contexts.
    expected = (first.var(1, ddof=1) / 400).sum() / 4
    got = chain_protocol._bootstrap_variance(estimates, truth, generator)
    assert got == pytest.approx(expected, rel=0.15)
    assert chain_protocol.mean_error(estimates.mean(1), truth) == pytest.approx(0.2, abs=0.01)


def test_the_divergence_is_zero_only_between_equal_distributions():
    right = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    wrong = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]], dtype=torch.float64)
    got = text_protocol.kl_divergence(right.log(), wrong.log())
    assert got.tolist() == pytest.approx([0.5 * np.log(2), 0.0], abs=1e-15)


def test_text_tokenizers_never_see_the_held_out_part_but_know_its_symbols(tmp_path):
    standin.make("tinyshakespeare", tmp_path)
    tokenizer = sources.text_tokenizer(TrainParams(tokenizer="bpe", vocabulary_size=80), tmp_path)
    train_only = bpe.train(
        [sources.part(tmp_path, "train")],
        80,
        alphabet="".join(set(sources.part(tmp_path, "test"))),
        pieces=bpe.WORD_PIECES,
    )
    assert tokenizer.vocabulary == train_only.vocabulary
