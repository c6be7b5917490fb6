"""The stages of number-token-loss at the smoke profile, and what they must say where the answer is known."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from components.errors import TesseraError
from components.language.answering import cross_entropy
from components.language.t5 import T5, T5Config, hub_name
from components.metrics.tables import MetricTable, condition
from components.tokenizers.text.numeric import ALPHABET, CharacterTokenizer
from components.training.determinism import reset
from components.training.weights import read_tensors, write_tensors
from flows.declarations.paper import AllOf
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import JudgeContext, StageContext
from flows.studies.language_model import networks, number_rows, objectives, questions, standin
from flows.studies.language_model.number_token_loss import judge
from flows.studies.language_model.number_token_loss.evaluate import evaluate
from flows.studies.language_model.number_token_loss.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.language_model.number_token_loss.train import train
from flows.studies.language_model.params import METRICS as SHARED_METRICS

PAPER = Workspace.load(Path(__file__).parents[4]).paper("number-token-loss")
SEED = 0


@dataclass
class Runs:
    data: dict[str, Path]
    trainings: dict[tuple[str, str], Path]
    evaluations: dict[tuple[str, str], Path]

    def metrics(self, variant: str, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[variant, arm] / "metrics.parquet")


def run_stage(kind: str, variant: str, arm: str, inputs: dict[str, Path], output: Path, **changed) -> Path:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    params = resolve(PAPER, variant, arm, "smoke", kind).model_copy(update=changed)
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
    data, trainings, evaluations = {}, {}, {}
    for variant, declared in PAPER.variants.items():
        (name,) = declared.data
        (root / name).mkdir()
        standin.make(name, root / name)
        data[variant] = root / name
        for arm, declaration in PAPER.arms_of(variant).items():
            given = {f"data/{name}": root / name}
            if declaration.trains:
                trainings[variant, arm] = run_stage("train", variant, arm, given, root / f"train-{variant}-{arm}")
                given["train"] = trainings[variant, arm]
            evaluations[variant, arm] = run_stage("evaluate", variant, arm, given, root / f"evaluate-{variant}-{arm}")
    return Runs(data, trainings, evaluations)


def judged(runs: Runs, variant: str, output: Path) -> dict[tuple[str, int], MetricTable]:
    evaluations = {(arm, SEED): run for (owner, arm), run in runs.evaluations.items() if owner == variant}
    trainings = {(arm, SEED): run for (owner, arm), run in runs.trainings.items() if owner == variant}
    output.mkdir()
    return judge.derive(JudgeContext(PAPER, variant, "smoke", evaluations, trainings, output)) or {}


@pytest.fixture(scope="module")
def judgements(runs, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """Output and derived metrics of the judge of each variant."""
    root = tmp_path_factory.mktemp("judge")
    return {variant: (root / variant, judged(runs, variant, root / variant)) for variant in PAPER.variants}


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    declared = SHARED_METRICS | METRICS
    for run in runs.evaluations.values():
        for metric, unit in pl.read_parquet(run / "metrics.parquet").select("metric", "unit").unique().rows():
            assert declared[metric].unit == unit, metric


def test_every_metric_that_a_claim_names_is_measured_or_derived_where_it_names_it(runs, judgements):
    for claim in PAPER.claims:
        variant = PAPER.variant_of(claim)
        _, derived = judgements[variant]
        single = [test for group in (*claim.gates, *claim.tests) for test in _members(group)]
        for test in single:
            for arm in test.arms:
                known = set(runs.metrics(variant, arm).select("metric", "at").unique().rows())
                if (arm, SEED) in derived:
                    known |= set(derived[arm, SEED].frame().select("metric", "at").unique().rows())
                assert (test.metric, condition(test.at)) in known, (claim.id, test.metric, arm)


def _members(test):
    return test.all_of if isinstance(test, AllOf) else (test,)


def test_a_blind_arm_errs_by_one_blind_error_where_nothing_is_cut_off(runs):
    frame = runs.metrics("math-questions", "blind")
    for category in ("add_sub", "div"):
        at = f"category={category},split=interpolation"
        rows = frame.filter(pl.col("at") == at)
        mae, blind = (rows.filter(pl.col("metric") == name)["value"].item() for name in ("mae", "blind_mae"))
        assert mae == pytest.approx(blind)
        assert rows.filter(pl.col("metric") == "nerr")["value"].mean() <= 1 + 1e-9


def test_arms_are_asked_the_same_questions(runs):
    arms = [arm for variant, arm in runs.evaluations if variant == "math-questions"]
    named = [runs.metrics("math-questions", arm).filter(pl.col("metric") == "nerr")["sample"].to_list() for arm in arms]
    assert len(named[0]) == len(set(named[0])) == 2 * 4 * 5
    assert all(items == named[0] for items in named)


@pytest.mark.parametrize(
    ("variant", "arm"), [("math-questions", "ce_ntl_shuffled"), ("math-questions", "xval"), ("regression", "reg_head")]
)
def test_a_stage_gives_the_same_bytes_twice(runs, variant, arm, tmp_path):
    (name,) = PAPER.variants[variant].data
    given = {f"data/{name}": runs.data[variant]}
    again = run_stage("train", variant, arm, given, tmp_path / "train")
    evaluated = run_stage("evaluate", variant, arm, {**given, "train": again}, tmp_path / "evaluate")
    for first, second in ((runs.trainings[variant, arm], again), (runs.evaluations[variant, arm], evaluated)):
        files = sorted(path.name for path in first.iterdir())
        assert files == sorted(path.name for path in second.iterdir())
        assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        pytest.param("math-questions", {"errors.svg", "digits.svg", "false-minimum.svg"}, marks=pytest.mark.slow),
        ("regression", {"regression.svg"}),
    ],
)
def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(runs, judgements, tmp_path, variant, expected):
    judged(runs, variant, tmp_path / "again")
    one, two = judgements[variant][0] / "figures", tmp_path / "again" / "figures"
    assert {path.name for path in one.iterdir()} == expected
    for path in one.iterdir():
        assert "<dc:title>" in path.read_text()
        assert path.read_bytes() == (two / path.name).read_bytes()


def run_of(errors: dict[str, list[float]], exact: dict[str, list[float]]) -> pl.DataFrame:
    table = MetricTable()
    first = 0
    for category, values in errors.items():
        at = {"category": category, "split": "interpolation"}
        items = range(first, first + len(values))
        table.add_items("nerr", values, unit="", at=at, items=items, normaliser="blind MAE")
        table.add_items("exact_match", exact[category], unit="share", at=at, items=items)
        first += len(values)
    return table.frame()


@pytest.mark.parametrize(
    ("error", "right", "expected"),
    [
        ({}, {}, ("add_sub", "div")),
        ({"div": [0.6] * 10}, {}, ("add_sub",)),
        ({}, {"add_sub": [0.0] * 10}, ("div",)),
        ({}, {"div": [1.0] * 9 + [0.0]}, ("add_sub",)),
        ({"add_sub": [0.9] * 10}, {"div": [0.0] * 10}, ()),
    ],
)
def test_a_category_outside_the_gate_on_one_seed_is_left_out(error, right, expected):
    errors = {"add_sub": [0.3] * 10, "div": [0.1] * 10}
    exact = dict.fromkeys(errors, [1.0] + [0.0] * 9)
    good, bad = run_of(errors, exact), run_of(errors | error, exact | right)
    assert judge.inside_gate([good, bad, good]) == expected
    pooled = judge.pooled(good, expected).frame()
    counted = expected or judge.CANDIDATES
    assert pooled.filter(pl.col("metric") == "judged_categories")["value"].item() == len(expected)
    assert pooled.filter(pl.col("metric") == "judged_nerr")["value"].mean() == pytest.approx(
        np.mean([value for name in counted for value in errors[name]])
    )
    assert pooled.filter(pl.col("metric") == "judged_exact").height == 10 * len(counted)


def test_the_weight_multiplies_the_number_loss_and_shuffling_changes_it():
    tokenizer = CharacterTokenizer()
    network = networks.make_network(TrainParams(context=12), tokenizer)
    frame = pl.DataFrame({"question": ["1+1", "2+7"], "answer": ["2", "9"]})
    rows = network.arrange(questions.encode(frame, tokenizer, None))

    def value(**settings) -> float:
        objective = objectives.AnswerObjective(TrainParams(**settings), tokenizer, 3, "cpu")
        return objective(network, rows, torch.Generator())[0].item()

    plain = value()
    assert plain == pytest.approx(cross_entropy(network(rows), rows["labels"]).item())
    one, two = value(number_loss="wasserstein") - plain, value(number_loss="wasserstein", number_weight=0.6) - plain
    assert two == pytest.approx(2 * one, rel=1e-4)
    # An untrained network is nearly uniform over the digits: mean distance of 0..9 to 2 and to 9, times 0.3.
    assert one == pytest.approx(0.3 * (3.1 + 4.5) / 2, rel=0.05)
    assert value(number_loss="squared") - plain == pytest.approx(0.3 * (2.5**2 + 4.5**2) / 2, rel=0.1)
    shuffled = tokenizer.number_tokens.shuffled(3).values
    expected = np.mean([np.abs(np.arange(10) - shuffled[label]).mean() for label in (2, 9)])
    found = value(number_loss="wasserstein", shuffled_values=True) - plain
    assert found == pytest.approx(0.3 * expected, rel=0.05)


def test_digits_are_scored_against_a_network_whose_distribution_is_known(runs):
    class Uniform(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = networks.make_network(TrainParams(), tokenizer)

        def arrange(self, tokens):
            return self.inner.arrange(tokens)

        def forward(self, rows):
            return torch.zeros(*rows["labels"].shape, len(tokenizer.vocabulary))

    tokenizer = CharacterTokenizer()
    frame = pl.DataFrame(
        {
            "question": ["1+1", "2+7", "4-9"], "answer": ["2", "19", "-5"], "item": [3, 4, 9],
            "category": ["add_sub"] * 3, "split": ["interpolation"] * 3,
        }
    )  # fmt: skip
    table = MetricTable()
    tokens = questions.encode(frame, tokenizer, 34)
    first = questions.score_digits(table, Uniform(), tokenizer, tokens, frame, 2)
    found = {(row["metric"], row["at"]): row["value"] for row in table.frame().iter_rows(named=True)}
    assert found["nats_per_token", "split=interpolation"] == pytest.approx(np.log(len(tokenizer.vocabulary)), rel=1e-6)
    assert found["digit_error", "category=add_sub,place=0,split=interpolation"] == pytest.approx((2.5 + 4.5 + 0.5) / 3)
    assert found["digit_error", "category=add_sub,place=1,split=interpolation"] == pytest.approx(3.5)
    hidden = [np.abs(np.arange(10) - label).mean() - abs(4.5 - label) for label in (2, 9, 5)]
    assert found["digit_spread", "category=add_sub,place=0,split=interpolation"] == pytest.approx(np.mean(hidden))
    assert first.select("item", "label").rows() == [(3, 2), (4, 1)]
    assert first["q"].to_numpy() == pytest.approx(np.full((2, 10), 0.1))


def test_answers_are_scored_by_hand():
    frame = pl.DataFrame(
        {
            "item": [0, 1, 2, 3], "category": ["div"] * 4, "split": ["interpolation"] * 4,
            "answer": ["10", "20", "30", "40"], "value": [10, 20, 30, 40],
        }
    )  # fmt: skip
    table = MetricTable()
    questions.score(table, frame, ["10", "25", "9999", "1-"], {"div": 20.0})
    found = table.frame()
    blind = (10 + 0 + 10 + 20) / 4
    assert found.filter(pl.col("metric") == "nerr")["value"].to_list() == [0, 5 / blind, 2, 2]
    assert found.filter(pl.col("metric") == "exact_match")["value"].to_list() == [1, 0, 0, 0]
    whole = {row["metric"]: row["value"] for row in found.filter(pl.col("sample").is_null()).iter_rows(named=True)}
    assert whole["accuracy"] == 0.25
    assert whole["unparsable_share"] == 0.25
    assert whole["mae"] == pytest.approx((0 + 5 + 9969) / 3)
    assert whole["median_error"] == pytest.approx((5 + 9969) / 2)
    assert found.filter(pl.col("metric") == "mae")["masked_share"].item() == 0.25


def test_rows_of_numbers_are_spelled_in_two_digits_and_read_as_expected_values(runs):
    rows = number_rows.NumberRows(np.array([[7, 99], [0, 42]]), np.array([5.0, 63.0]), ["a", "b"])
    tokenizer = CharacterTokenizer()
    tokens = number_rows.encode(rows, tokenizer)
    assert tokenizer.decode_all(tokens.prompts.numpy()) == ["0799=", "0042="]
    assert tokenizer.decode_all(tokens.answers.numpy()) == ["05", "63"]

    class Certain:
        def answer(self, tokens, count, wanted):
            logits = torch.full((2, count, 10), -1e9)
            logits[0, :, 4] = logits[1, 0, 6] = logits[1, 1, 3] = 0.0
            logits[0, 1, 5] = 0.0  # half on 4 and half on 5
            return dataclasses.make_dataclass("Answers", ["logits"])(logits)

    found = number_rows.predictions(Certain(), tokenizer, rows)
    assert found["rmse"].tolist() == pytest.approx([44.5, 63])
    assert found["greedy_rmse"].tolist() == [44, 63]
    known = number_rows.read(runs.data["regression"], 0, "train")
    assert number_rows.reference("constant", known, rows) == pytest.approx([known.targets.mean()] * 2)
    with pytest.raises(TesseraError, match="has no table 4"):
        number_rows.read(runs.data["regression"], 4, "train")


def test_the_diabetes_table_is_scaled_by_its_training_rows(runs):
    train_rows, test_rows = (number_rows.read(runs.data["diabetes"], 0, split) for split in ("train", "test"))
    assert len(train_rows.items) + len(test_rows.items) == 442
    assert not set(train_rows.items) & set(test_rows.items)
    assert (train_rows.inputs.min(0) == 0).all()
    assert (train_rows.inputs.max(0) == 99).all()
    assert {int(test_rows.inputs.min()), int(test_rows.inputs.max())} <= set(range(100))


def test_the_sizes_of_the_small_profile_are_those_of_the_specification():
    params = resolve(PAPER, "math-questions", "ce_ntl_was", "small", "train")
    network = networks.make_network(params, networks.make_tokenizer(params))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(1e5, rel=0.15)
    assert (params.context, params.batch, params.learning_rate) == (40, 64, 2e-3)
    assert params.number_weight == 0.3
    table = resolve(PAPER, "regression", "ce", "small", "train")
    assert (table.context, table.batch, table.steps) == (20, 128, 600)


def test_the_full_profile_builds_t5_base(tmp_path):
    params = resolve(PAPER, "math-questions", "ce_ntl_was", "full", "train")
    assert params.initial == "t5-base"

    class Pieces:
        vocabulary = range(32_100)

    with torch.device("meta"):
        network = networks.make_network(params, Pieces())
        rows = resolve(PAPER, "math-questions", "rt", "full", "train")
        other = networks.make_network(rows, networks.make_tokenizer(rows))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.001)
    assert count == pytest.approx(220e6, rel=0.05)
    assert other.model.embedding.encodings.shape[1] == 768
    for arm in PAPER.arms_of("math-questions"):
        resolve(PAPER, "math-questions", arm, "full", "evaluate")


def test_a_training_starts_from_the_files_of_a_t5_of_the_hub(runs, tmp_path):
    pieces = ["<pad>", "</s>", "<unk>", "▁", "12", *ALPHABET.replace(" ", "")]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    base = tmp_path / "t5-tiny"
    base.mkdir()
    tokenizer.save(str(base / "tokenizer.json"))
    torch.manual_seed(0)
    model = T5(T5Config(128, 8, 1, 2, 4, 32))
    write_tensors({hub_name(name): part for name, part in model.state_dict().items()}, base / "model.safetensors")
    config = {
        "vocab_size": 128, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4, "d_ff": 32,
        "relative_attention_num_buckets": 32, "decoder_start_token_id": 0,
    }  # fmt: skip
    (base / "config.json").write_text(json.dumps(config))
    settings = {"network": "t5_answering", "tokenizer": "digit_splitting", "initial": "t5-tiny"}
    given = {"data/math-questions": runs.data["math-questions"], "bases/t5-tiny": base}
    trained = run_stage("train", "math-questions", "ce_ntl_was", given, tmp_path / "train", **settings)
    before = model.embedding.weight.detach()
    after = read_tensors(trained / "model.safetensors")["model.embedding.weight"]
    assert 0 < (after - before).abs().max() < 0.1, "two steps from the base's weights"
    given["train"] = trained
    evaluated = run_stage("evaluate", "math-questions", "ce_ntl_was", given, tmp_path / "evaluate", **settings)
    frame = pl.read_parquet(evaluated / "metrics.parquet")
    assert {"nerr", "digit_error", "nats_per_token"} <= set(frame["metric"])


def test_arms_choose_only_the_components_they_use():
    assert components(EvaluateParams(predictor="ridge", task="table"), "evaluate") == ()
    assert "components.language.number_loss" not in components(TrainParams(), "train")
    chosen = components(TrainParams(number_loss="squared", smoothing=1.0, tokenizer="regression_transformer"), "train")
    assert set(chosen) == {
        "components.language.causal_answering", "components.tokenizers.text.regression_transformer",
        "components.language.place_embedding", "components.language.number_loss",
        "components.language.label_smoothing",
    }  # fmt: skip
    assert "components.language.number_loss" not in components(EvaluateParams(number_loss="squared"), "evaluate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "xval"}, "go together"),
        ({"network": "xval", "tokenizer": "xval", "number_loss": "squared"}, "no number tokens"),
        ({"network": "regression_head"}, "expected task: table"),
        ({"context": 7}, "at most the context less 2"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainParams(**settings)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(TesseraError, match="Did you mean 'math-questions'"):
        standin.make("math-question", tmp_path)
