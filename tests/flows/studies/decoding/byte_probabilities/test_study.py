"""The stages of byte-probabilities at the smoke profile, and what they must say where the answer is known."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import construct, specification
from components.language.byte_stream import ByteStream
from components.language.token_healing import greedy_tokens
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.studies.context import JudgeContext, StageContext
from flows.studies.decoding import standin
from flows.studies.decoding.byte_probabilities import exactness, gaps, judge, predictors, prompts, texts
from flows.studies.decoding.byte_probabilities.evaluate import evaluate
from flows.studies.decoding.byte_probabilities.params import EvaluateParams, components
from flows.studies.decoding.byte_probabilities.passages import HeldOut

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("byte-probabilities")
SEED = 0


@dataclass
class Runs:
    inputs: dict[str, Path]
    evaluations: dict[str, Path]

    def metrics(self, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[arm] / "metrics.parquet")

    def values(self, arm: str, metric: str, **at) -> list[float]:
        frame = self.metrics(arm).filter(pl.col("metric") == metric, pl.col("at") == condition(at))
        return frame["value"].to_list()


def stage_of(arm: str, inputs: dict[str, Path], output: Path) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    params = resolve(PAPER, "python", arm, "smoke", "evaluate")
    return StageContext(
        "evaluate", PAPER.slug, "python", arm, SEED, "smoke", params, inputs,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip


def run_stage(arm: str, inputs: dict[str, Path], output: Path) -> Path:
    stage = stage_of(arm, inputs, output)
    reset(SEED)
    evaluate(stage)
    return stage.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root, inputs = tmp_path_factory.mktemp("smoke"), {}
    variant = PAPER.variants["python"]
    for kind, names, make in (("data", variant.data, standin.make), ("bases", variant.bases, standin.make_base)):
        for name in names:
            inputs[f"{kind}/{name}"] = root / name
            (root / name).mkdir()
            make(name, root / name)
    return Runs(inputs, {arm: run_stage(arm, inputs, root / arm) for arm in PAPER.arms})


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    declared = load_study(PAPER.study, PAPER.slug).metrics
    for arm in runs.evaluations:
        for metric, unit in runs.metrics(arm).select("metric", "unit").unique().rows():
            assert declared[metric].unit == unit, metric


def test_every_metric_that_a_claim_names_is_measured_where_it_names_it(runs, judged):
    derived, _ = judged
    for claim in PAPER.claims:
        for test in (*claim.gates, *claim.tests):
            for arm in test.arms:
                frames = [runs.metrics(arm), *(table.frame() for (name, _), table in derived.items() if name == arm)]
                measured = {row for frame in frames for row in frame.select("metric", "at").unique().rows()}
                for at in (test.at, getattr(test, "over_at", None)):
                    assert (at is None and test.at is not None) or (test.metric, condition(at)) in measured


def test_sums_over_covers_are_exact(runs):
    assert runs.values("byte_exact", "enumeration_error")[0] < 1e-12


def test_a_wrong_sum_would_be_found(monkeypatch):
    monkeypatch.setattr(ByteStream, "_first_cover", lambda self: None)
    generator = np.random.default_rng(0)
    tokenizer = exactness.random_bpe(6, generator)
    model = exactness.RandomTokenModel(tokenizer, 0, only_valid=True)
    truth = exactness.enumerate_texts(model.next, tokenizer.vocabulary, model.end, 4)
    assert max(exactness.differences(model, tokenizer, truth, 4)) > 0.01


def test_a_models_tokens_and_bytes_agree_on_whole_texts(runs):
    for arm in ("member_bpe", "member_unigram"):
        assert runs.values(arm, "conversion_gap")[0] < 1e-6
        assert min(runs.values(arm, "truncated_mass")) > 0
        assert np.mean(runs.values(arm, "truncation_gain")) > 0


def test_an_ensemble_costs_at_most_the_members_mean_on_every_text(runs):
    frames = [runs.metrics(arm).filter(pl.col("metric") == "bits_per_byte") for arm in ("member_bpe", "member_unigram")]
    joined = runs.metrics("byte_ensemble").filter(pl.col("metric") == "bits_per_byte")
    assert joined["sample"].to_list() == frames[0]["sample"].to_list() == frames[1]["sample"].to_list()
    assert joined["value"].mean() <= np.mean([frame["value"].mean() for frame in frames])


def test_calls_are_counted_and_few(runs):
    for arm in ("byte_exact", "byte_fast"):
        assert max(runs.values(arm, "first_calls")) <= 11
        assert runs.values(arm, "calls_per_byte")[0] <= 1.1


def test_arms_of_one_seed_are_asked_behind_the_same_prompts_and_around_the_same_gaps(runs):
    for metric, arms in (
        ("next_byte_bits", ("byte_exact", "byte_fast", "token_direct", "token_healing")),
        ("middle_match", ("byte_exact", "byte_fast", "token_direct", "token_healing", "token_psm")),
        ("rest_of_line_match", ("byte_exact", "token_direct", "token_healing")),
    ):
        items = [runs.metrics(arm).filter(pl.col("metric") == metric).select("at", "sample").rows() for arm in arms]
        assert all(each == items[0] for each in items)


def test_a_stage_gives_the_same_bytes_twice(runs, tmp_path):
    again = run_stage("byte_exact", runs.inputs, tmp_path / "again")
    first = runs.evaluations["byte_exact"]
    assert (first / "metrics.parquet").read_bytes() == (again / "metrics.parquet").read_bytes()


@pytest.fixture(scope="module")
def judged(runs, tmp_path_factory) -> tuple[dict, list[Path]]:
    """The derived metrics, and the figures of two judge stages."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    evaluations = {(arm, SEED): run for arm, run in runs.evaluations.items()}
    for folder in folders:
        derived = judge.derive(JudgeContext(PAPER, "python", "smoke", evaluations, {}, folder))
    return derived, [folder / "figures" for folder in folders]


def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(judged):
    _, (one, two) = judged
    assert {path.name for path in one.iterdir()} == {"bits-behind-cut.svg", "completions.svg", "ensemble.svg"}
    for path in one.iterdir():
        assert "<dc:title>" in path.read_text()
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_best_filling_is_the_highest_rate_of_any_arm(runs, judged):
    derived, _ = judged
    best = derived["byte_exact", SEED].frame()
    rates = [np.mean(runs.values(arm, "middle_match")) for arm in PAPER.arms if runs.values(arm, "middle_match")]
    assert best["value"].item() == max(rates)
    assert best["samples"].item() == 5


@pytest.fixture
def asked(runs, tmp_path):
    stage = stage_of("byte_exact", runs.inputs, tmp_path / "stage")
    return stage, predictors.asked_model(stage, "bpe"), HeldOut(runs.inputs["data/python-source"], 48)


def test_prompts_are_cut_where_they_say_and_fit_the_context(asked):
    stage, model, held_out = asked
    for where in ("inside", "end"):
        for cut in prompts.cuts(stage, model, held_out, where):
            tokens = model.tokenizer.encode(cut.prompt + cut.following)
            ends = np.cumsum([len(model.tokenizer.vocabulary[token]) for token in tokens])
            assert (len(cut.prompt) in ends) == (where == "end")
            assert len(cut.following) >= stage.params.following_bytes


def test_greedy_bytes_and_greedy_tokens_are_followed_as_far_as_they_are_right(asked):
    _, model, _ = asked
    prompt = "def name(item"
    written = ""
    stream = ByteStream(model.rows(model.session().next, truncated=True), prompt)
    for _ in range(5):
        written += stream.alphabet[int(stream.log_probabilities()[:-1].argmax())]
        stream.append(written[-1])
    for span, expected in ((written, True), (written[:-1] + chr(ord(written[-1]) ^ 1), False)):
        assert predictors.writes_span(predictors.byte_model("byte_exact", model, prompt, span), span) == expected
    rows = model.rows(model.session().next, truncated=False)
    strings = [
        string for _, string in zip(range(4), greedy_tokens(rows, prompt, healed=True, ends=False), strict=False)
    ]
    text = "".join(strings)
    for span, expected in ((text, True), (text[:-1], True), (text[:-1] + chr(ord(text[-1]) ^ 1), False)):
        tokens = predictors.greedy_strings("token_healing", model, prompt, ends=False)
        assert predictors.strings_write_span(tokens, span) == expected


def test_lines_written_by_tokens_are_compared_up_to_their_break():
    for strings, line, expected in (
        (["ab", "c\n  d"], "abc\n", True),
        (["ab", "c", "d\n"], "abc\n", False),
        (["ab", "c"], "abc\n", True),
        (["ab"], "abc\n", False),
        (["", "\nx"], "\n", True),
    ):
        assert predictors.strings_write_line(iter(strings), line) == expected


def test_an_end_of_text_in_place_of_a_break_ends_the_line_too(asked):
    class Scripted:
        alphabet = "ab\n"

        def __init__(self, choices):
            self.choices = choices

        def log_probabilities(self):
            return np.log(np.eye(4)[self.choices.pop(0)] + 1e-9)

        def append(self, symbol):
            pass

    assert predictors.writes_line(Scripted([0, 1, 2]), "ab\n")
    assert predictors.writes_line(Scripted([0, 1, 3]), "ab\n")
    assert not predictors.writes_line(Scripted([0, 3]), "ab\n")
    assert not predictors.writes_line(Scripted([0, 0, 2]), "ab\n")


def test_gaps_are_shared_by_seeds_and_psm_puts_the_prefix_first(asked, monkeypatch):
    stage, model, held_out = asked
    drawn = gaps.draw(stage, model, held_out)
    contexts = []

    def recorded(query, model, prompt, context, ends):
        contexts.append((prompt, context))
        return iter(())

    monkeypatch.setattr(gaps, "greedy_strings", recorded)
    for query in ("token_psm", "token_direct"):
        gaps.fills(query, model, drawn[0])
    (_, psm), (prompt, spm) = contexts
    special = {identity: name for name, identity in model.specials.items()}
    assert [special[token] for token in psm if token in special] == ["<pre>", "<suf>", "<mid>"]
    assert spm[:2] == [model.specials["<pre>"], model.specials["<suf>"]]
    assert spm[-1] == model.specials["<mid>"]
    assert prompt == drawn[0].prefix
    assert model.tokenizer.decode(spm[2:-1]) == drawn[0].suffix


def test_bits_of_tokens_are_the_networks_own(asked):
    _, model, _ = asked
    text = "def value(item):\n"
    tokens = model.tokenizer.encode(text)
    found = texts.token_bits(model, model.tree(text, 0), text)
    logs = model.network.along(torch.tensor([tokens]))[0]
    expected = [-logs[place, token].item() / math.log(2) for place, token in enumerate(tokens)]
    expected.append(-logs[len(tokens), model.specials["<eos>"]].item() / math.log(2))
    assert found.plain.tolist() == pytest.approx(expected)
    assert (found.truncated <= found.plain + 1e-12).all()


def test_the_full_profile_is_of_code_llamas_size():
    expected = PAPER.profiles["full"].expect["parameters"]
    with torch.device("meta"):
        model = construct(
            specification(
                "components.language.causal_lm",
                vocabulary_size=32_016, context=16_384, width=4096, layers=32, heads=32, mlp_ratio=11_008 / 4096,
                norm="rms", activation="swiglu", bias=False, positions="rotary",
            )
        )  # fmt: skip
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(expected, rel=0.01)
    params = resolve(PAPER, "python", "byte_ensemble", "full", "evaluate")
    assert params.base_of("bpe", 0) == "code-llama-7b"


def test_an_arm_names_the_tokenizers_of_its_models_and_one_model_where_one_is_asked():
    both = EvaluateParams(query="text", models=("bpe", "unigram"))
    assert components(both, "evaluate") == ("components.tokenizers.text.bpe", "components.tokenizers.text.unigram")
    assert components(EvaluateParams(), "train") == ()
    with pytest.raises(ValueError, match="several for text"):
        EvaluateParams(models=("bpe", "unigram"))
    with pytest.raises(ValueError, match="shortest_gap"):
        EvaluateParams(shortest_gap=9)
