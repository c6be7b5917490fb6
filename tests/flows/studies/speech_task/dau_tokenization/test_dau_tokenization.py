"""Arms over phonemes and units at the smoke profile, and what must hold of errors, bits and comparisons."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import construct
from components.data import parquet
from components.metrics.tables import MetricTable
from components.speech.recogniser import ALPHABET
from components.speech.seq2seq import Seq2Seq
from components.tokenizers.audio import unit_bpe
from components.training.loop import Optimisation, fit
from components.training.weights import load_weights
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.smoke import smoke_in_process, smoke_plan
from flows.studies.context import JudgeContext, StageContext
from flows.studies.speech_task.dau_tokenization import sequences, symbols, unit_model
from flows.studies.speech_task.dau_tokenization.judge import _Figures
from flows.studies.speech_task.dau_tokenization.params import TrainParams
from flows.studies.speech_task.dau_tokenization.speaking import mean_runs
from flows.studies.speech_task.dau_tokenization.speed import greedy_steps
from flows.studies.speech_task.dau_tokenization.symbols import Corpus, SymbolError, characters_of, learned_tokens

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("dau-tokenization")


@pytest.fixture(scope="module", params=list(PAPER.variants))
def smoke(request, tmp_path_factory) -> tuple[str, Path]:
    under = tmp_path_factory.mktemp("smoke")
    smoke_in_process(ROOT, PAPER, request.param, str(under))
    return request.param, under


def test_every_arm_writes_declared_metrics_and_the_judge_draws(smoke):
    variant, under = smoke
    declared = load_study(PAPER.study, PAPER.slug).metrics
    specs = [spec for spec in smoke_plan(PAPER, variant, str(under)) if spec.kind == "evaluate"]
    assert {spec.arm for spec in specs} == set(PAPER.arms_of(variant))
    for spec in specs:
        for metric, unit in pl.read_parquet(Path(spec.output) / "metrics.parquet")["metric", "unit"].unique().rows():
            assert declared[metric].unit == unit, (spec.arm, metric)
    assert (under / "results" / PAPER.slug / variant / "figures" / "sizes.svg").is_file()


def test_errors_are_counted_over_expanded_symbols_not_over_tokens():
    tokens = unit_bpe.train([[0, 1, 0, 1, 0, 1, 2]] * 3, 4, base_size=3)
    assert tokens.expansions[3] == (0, 1)
    # One wrong token of two: half of the tokens, but two of three symbols.
    (row,), reference = sequences.symbol_error_rows([[2, 2]] * 2, [[0, 1, 2]] * 2, tokens)[:1], tokens.encode([0, 1, 2])
    assert reference == [3, 2]
    assert row == pytest.approx(200 / 3)
    assert sequences.symbol_error_rows([reference] * 2, [[0, 1, 2]] * 2, tokens) == [0, 0]


def test_bits_of_an_utterance_are_those_of_its_tokens_and_its_end():
    torch.manual_seed(0)
    model = construct(unit_model.description(TrainParams(width=16, lm_layers=1, heads=2, context=32), 5)).eval()
    tokens = [0, 4, 2, 2]
    law = model.along(torch.tensor([[5, *tokens, 5]]))[0]
    expected = -sum(float(law[place + 1, token]) for place, token in enumerate([*tokens, 5])) / math.log(2)
    assert unit_model.sequence_bits(model, tokens) == pytest.approx(expected)


@pytest.mark.parametrize("length", [0, 5, 6, 7, 20, 41])
def test_every_token_of_a_long_utterance_is_counted_once(length):
    torch.manual_seed(0)
    model = construct(unit_model.description(TrainParams(width=8, lm_layers=1, heads=2, context=8), 3)).eval()
    with torch.no_grad():
        model.output.weight.zero_()  # all of the four tokens equally likely, always
    assert unit_model.sequence_bits(model, ([0, 1, 2] * 14)[:length]) == pytest.approx(2 * (length + 1))


def test_rows_of_a_ratio_have_it_as_their_mean():
    rows = unit_model.ratio_rows([10.0, 3.0, 8.0], [4, 2, 9])
    assert np.mean(rows) == pytest.approx(21 / 15)


CHAIN = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.45, 0.1, 0.45]])


def drawn(count: int, length: int, seed: int) -> list[list[int]]:
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = [int(draws.integers(3))]
        while len(row) < length:
            row.append(int(draws.choice(3, p=CHAIN[row[-1]])))
        rows.append(row)
    return rows


def source_bits(rows: list[list[int]]) -> float:
    """Return bits per unit of the units behind the first, under the chain itself."""
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    return -sum(math.log2(CHAIN[pair]) for pair in pairs) / len(pairs)


@pytest.fixture(scope="module")
def chain_models():
    """Models of units and of tokens of a known chain, in one long row."""
    train, found = drawn(1, 12_000, 0)[0], {}
    for vocabulary in (0, 9):
        params = TrainParams(task="lm", vocabulary=vocabulary, width=24, lm_layers=1, heads=2, context=32)
        tokens = learned_tokens(params, [train], 3, 0)
        stream = torch.tensor(tokens.encode(train))
        torch.manual_seed(0)
        model = construct(unit_model.description(params, tokens.vocabulary_size))

        def draw(step, generator, stream=stream):
            return stream[torch.randint(len(stream) - 31, (12, 1), generator=generator) + torch.arange(32)]

        fit(model, draw, lambda model, batch, _: (model.loss(batch), {}), Optimisation(250, 1e-2, 20), seed=0)
        found[vocabulary] = (tokens, model)
    return found


@pytest.mark.parametrize("vocabulary", [0, 9])
def test_models_of_units_and_of_tokens_approach_the_entropy_of_the_source(chain_models, vocabulary):
    tokens, model = chain_models[vocabulary]
    (test,) = drawn(1, 2_000, 5)
    encoded = tokens.encode(test)
    pieces = [encoded[first : first + 30] for first in range(0, len(encoded) - 30, 30)]
    nats, units = 0.0, 0
    for piece in pieces:
        law = model.along(torch.tensor([piece]))[0]
        # The first token of a piece is given.
        nats -= sum(float(law[place, token]) for place, token in enumerate(piece) if place)
        units += len(tokens.decode(piece[1:]))
    assert nats / math.log(2) / units == pytest.approx(source_bits([test]), abs=0.06)


def segmentations(units: list[int], tokens: unit_bpe.UnitBPE) -> list[list[int]]:
    if not units:
        return [[]]
    return [
        [token, *rest]
        for token, expansion in enumerate(tokens.expansions)
        if tuple(units[: len(expansion)]) == expansion
        for rest in segmentations(units[len(expansion) :], tokens)
    ]


def test_all_segmentations_together_are_at_least_as_likely_as_the_canonical_one(chain_models):
    tokens, model = chain_models[9]
    for units in drawn(5, 6, 9):
        every = segmentations(units, tokens)
        canonical = tokens.encode(units)
        assert canonical in every
        costs = {tuple(each): unit_model.sequence_bits(model, each) for each in every}
        marginal = -math.log2(sum(2.0**-cost for cost in costs.values()))
        assert marginal <= costs[tuple(canonical)] + 1e-9


def test_random_merges_do_not_beat_frequent_ones_at_the_same_length():
    train, test = drawn(300, 40, 1), drawn(60, 40, 2)

    def bits_and_ratio(merging: str, vocabulary: int) -> tuple[float, float]:
        tokens = learned_tokens(TrainParams(task="lm", merging=merging, vocabulary=vocabulary), train, 3, 0)
        bigram = unit_model.KneserNeyBigram([tokens.encode(row) for row in train], tokens.vocabulary_size)
        encoded = [tokens.encode(row) for row in test]
        units = sum(map(len, test))
        return sum(map(bigram.bits, encoded)) / units, sum(map(len, encoded)) / units

    at_random, ratio = bits_and_ratio("random", 20)
    frequent = min((bits_and_ratio("bpe", size) for size in range(4, 12)), key=lambda each: abs(each[1] - ratio))
    assert frequent[1] == pytest.approx(ratio, abs=0.1)
    assert frequent[0] <= at_random + 0.02


def test_neighbouring_words_change_places_and_the_rest_stays():
    frames = [9, 1, 1, 0, 2, 2, 2, 8]
    words = [("a", 160, 480), ("b", 640, 1_120)]
    assert unit_model.exchanged(frames, words) == [9, 2, 2, 2, 0, 1, 1, 8]
    assert unit_model.exchanged(frames, [("a", 160, 480), ("a", 640, 1_120)]) is None
    assert unit_model.exchanged(frames, words[:1]) is None


def test_units_last_as_long_as_they_do_on_average():
    assert mean_runs([[0, 0, 0, 1, 0], [1, 1]], 3) == [2, 2, 1]


def test_a_run_of_equal_operations_costs_what_the_run_over_base_symbols_costs():
    params = TrainParams(equal_flops=True, vocabulary=40, steps=1_000)
    train = drawn(50, 20, 3)
    corpus = Corpus(3, train, train, ["abc"] * 50, ["abc"] * 50, [])
    tokens = learned_tokens(params, train, 3, 0)
    targets = [tokens.encode(row) for row in train]
    steps = sequences.steps_of(params, corpus, tokens, targets)
    length = 1 + sum(map(len, targets)) / 50
    cost = sequences.example_operations(params, 3, length, tokens.vocabulary_size)
    assert steps > 1_000
    assert steps * cost == pytest.approx(1_000 * sequences.example_operations(params, 3, 21, 3), rel=1e-3)


def test_operations_are_the_multiplications_of_the_networks_matrices():
    params = TrainParams()
    model = Seq2Seq(targets=100, source_tokens=9, width=128, feed_forward=512)
    matrices = sum(
        each.numel() for name, each in model.named_parameters() if each.dim() == 2 and "embedding" not in name
    )
    matrices -= 9 * 128  # the source's embedding is looked up
    assert sequences.example_operations(params, 1, 1, 100) == matrices


def test_timed_steps_write_what_greedy_search_writes():
    torch.manual_seed(0)
    model = Seq2Seq(targets=6, source_tokens=9, width=16, heads=2, feed_forward=16).eval()
    source = torch.tensor([[1, 5, 2]])
    (greedy,) = model.greedy(source, torch.tensor([3]), 8)
    assert greedy_steps(model, source, 8)[: len(greedy)] == greedy


def test_sign_changes_of_the_last_quarter_are_counted(tmp_path):
    runs = {}
    for arm, rates in (("g2p_base", (30, 20, 20)), ("g2p_bpe512", (35, 18, 21))):
        (tmp_path / arm).mkdir()
        table = MetricTable()
        for place, rate in zip((75, 88, 100), rates, strict=True):
            table.add_items("per", [rate, rate], unit="percent", at={"progress": place})
        table.write(tmp_path / arm)
        runs[arm, 0] = tmp_path / arm
    stage = JudgeContext(PAPER, PAPER.canonical, "small", runs, {}, tmp_path / "out")
    turned = _Figures(stage).turns()["g2p_bpe512", 0].frame()
    assert turned.filter(pl.col("metric") == "sign_turns")["value"].item() == 2


def test_texts_are_spelled_and_foreign_characters_refused():
    assert [ALPHABET[place] for place in characters_of("a bee")] == list("a bee")
    with pytest.raises(SymbolError, match="'é'"):
        characters_of("né")


@pytest.mark.parametrize("arm", ["g2p_bpe512", "lm_bpe1000"])
def test_full_networks_build_on_the_meta_device(arm):
    params = resolve(PAPER, PAPER.canonical, arm, "full", "train")
    describe = unit_model.description if params.task == "lm" else sequences.description
    with torch.device("meta"):
        model = construct(describe(params, 8_000))
    assert sum(each.numel() for each in model.parameters()) > 20e6


@pytest.fixture
def guided(smoke, tmp_path, monkeypatch):
    """What the training of text to units gives to the training loop: a fake one that counts steps in the weights."""
    variant, under = smoke
    specs = smoke_plan(PAPER, variant, str(under))
    spec = next(each for each in specs if each.kind == "train" and each.arm.startswith("g2dau"))
    params = resolve(PAPER, variant, spec.arm, "smoke", "train").model_copy(update={"steps": 40, "guided_steps": 10})
    inputs = {name: Path(path) for name, path in spec.inputs.items()}
    (tmp_path / "checkpoint").mkdir()
    stage = StageContext(
        "train", PAPER.slug, variant, spec.arm, 0, "smoke", params, inputs, tmp_path, tmp_path, tmp_path / "checkpoint"
    )
    given = {}

    def fit(model, draw_batch, loss, optimisation, *, after_step, **_):
        given.update(model=model, draw_batch=draw_batch, loss=loss)
        for step in range(optimisation.steps):
            with torch.no_grad():
                model.output.bias.fill_(step + 1)
            after_step(model, step, None)
        return SimpleNamespace(write=lambda folder: None)

    monkeypatch.setattr(sequences, "fit", fit)
    sequences.train(stage)
    return tmp_path, given, params


def test_networks_are_kept_after_the_share_of_steps_that_their_name_says(guided):
    folder, given, params = guided
    for share in sequences.LATE:
        load_weights(given["model"], folder / f"after-{share}.safetensors")
        assert given["model"].output.bias[0] == params.steps * share // 100


def test_attention_is_guided_in_the_first_steps_only(guided):
    _, given, params = guided
    model = given["model"].eval()
    for step, weight in ((params.guided_steps - 1, params.guided_weight), (params.guided_steps, 0.0)):
        batch = given["draw_batch"](step, torch.Generator().manual_seed(0))
        loss, parts = given["loss"](model, batch, None)
        entropy, charge = model.loss(*batch[:4], smoothing=params.smoothing, guided=params.guided_width)
        assert parts["guided"] == charge > 0
        torch.testing.assert_close(loss, entropy + weight * charge)


def test_hours_of_training_audio_are_spread_over_all_of_it(tmp_path):
    # 80 training utterances of a minute: a quarter of their hours is every fourth one.
    names = [f"train/{number:03}" for number in range(80)] + ["test/a", "test/b"]
    frames = symbols.FRAMES_PER_SECOND * 60
    units = [[number] * frames for number in range(80)] + [[1, 2], [3]]
    table = pl.DataFrame(
        {"dataset": ["x"] * 82, "utterance": names, "layer3_200": units},
        schema_overrides={"layer3_200": pl.List(pl.Int16)},
    )
    parquet.write(table, tmp_path / symbols.UNITS_FILE)
    params = SimpleNamespace(stream=(3, 200), lm_hours=1 / 3)
    stage = SimpleNamespace(params=params, inputs={"bases/speech-units": tmp_path})
    stored = symbols.stored_units(stage)
    assert [row[0] for row in stored.train] == list(range(3, 80, 4))
    assert stored.held_out == [[1, 2], [3]]
    assert stored.names == ["x/test/a", "x/test/b"]
    params.lm_hours = 100
    assert len(symbols.stored_units(stage).train) == 80
    params.stream = (4, 200)
    with pytest.raises(SymbolError, match="layer 4"):
        symbols.stored_units(stage)


def test_merges_cross_words_only_where_they_may():
    rows = [[0, 1, 9, 0, 1, 9, 0, 1]] * 5
    inside = learned_tokens(TrainParams(vocabulary=16), rows, 10, 0, 9)
    across = learned_tokens(TrainParams(vocabulary=16, cross_word=True), rows, 10, 0, 9)
    assert not any(9 in expansion and len(expansion) > 1 for expansion in inside.expansions)
    assert any(9 in expansion and len(expansion) > 1 for expansion in across.expansions)


def test_outputs_stand_at_the_places_of_their_texts_though_lengths_are_decoded_together():
    class Echo:
        def beam(self, source, lengths, longest, *, beams):
            return [row[:length] for row, length in zip(source.tolist(), lengths.tolist(), strict=True)], None

    stage = SimpleNamespace(params=SimpleNamespace(together=2), device="cpu", progress=lambda *_: None)
    texts = ["abc", "a", "abcde", "ab", "b"]
    assert sequences._written(stage, Echo(), texts, 9) == [characters_of(text) for text in texts]


def test_a_model_of_tokens_is_trained_with_the_operations_of_the_model_of_units(tmp_path, monkeypatch):
    rows = drawn(40, 30, 4)
    stored = symbols.StoredUnits(3, rows, rows[:2], ["a", "b"])
    monkeypatch.setattr(unit_model, "stored_units", lambda stage: stored)
    steps = {}

    def fit(model, draw_batch, loss, optimisation, **_):
        steps[model.vocabulary_size] = optimisation.steps
        return SimpleNamespace(write=lambda folder: None)

    monkeypatch.setattr(unit_model, "fit", fit)
    for vocabulary in (0, 40):
        params = TrainParams(task="lm", vocabulary=vocabulary, equal_flops=vocabulary > 0, steps=900, context=16)
        folder = tmp_path / str(vocabulary)
        folder.mkdir()
        unit_model.train(StageContext("train", "x", "v", "a", 0, "small", params, {}, folder, folder, folder / "c"))
    costs = {size: count * unit_model.token_operations(params, size - 1) for size, count in steps.items()}
    assert steps[4] == 900 > max(count for size, count in steps.items() if size > 4)
    assert max(costs.values()) == pytest.approx(min(costs.values()), rel=1e-3)
