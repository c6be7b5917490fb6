"""Parts of tokenization theory against closed forms, counts by hand and a training that was cut off."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import pearsonr

from components.data.switching_chain import block_entropy, character_entropy, sample_text, switching_chain
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.unigram_lm import UnigramModel
from components.metrics.tables import MetricTable
from components.training.loop import fit
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.tokenization_theory import train as training
from flows.studies.text_tokenizer.tokenization_theory.chains import (
    DictionaryError,
    chain_of,
    draw_text,
    encode,
    spell,
    tokenised,
    tokenizer_of,
)
from flows.studies.text_tokenizer.tokenization_theory.params import EvaluateParams, TrainParams
from flows.studies.text_tokenizer.tokenization_theory.probe import (
    Probe,
    ShortText,
    Windows,
    conditional_table,
    schedule,
)
from flows.studies.text_tokenizer.tokenization_theory.unigram_losses import (
    estimation_cost,
    inverse_log_fit,
    measure,
    standard_error,
)

CHAIN = switching_chain(2, 0.8, 0.7)


class Conditional(torch.nn.Module):
    """A stand-in model that predicts from a table of next-token distributions, one row per context key."""

    start_token = 0

    def __init__(self, logs: torch.Tensor) -> None:
        super().__init__()
        self.logs = logs

    def with_start(self, tokens):
        return torch.nn.functional.pad(tokens, (1, 0))

    def forward(self, tokens):
        # Order 2 over characters: the last two characters decide; windows are watched from the third on.
        last, before = tokens, torch.nn.functional.pad(tokens[:, :-1], (1, 0))
        return self.logs[before * 2 + last]


def characters_as_windows(length: int, context: int, seed: int) -> Windows:
    codes = sample_text(CHAIN, length, np.random.default_rng(seed))
    return Windows.of(CHAIN, codes, codes.astype(np.int64), np.ones(2, np.int64), context)


def test_the_true_conditional_loses_the_entropy_rate_and_diverges_from_itself_by_nothing():
    held_out, counted = characters_as_windows(60_000, 100, 0), characters_as_windows(200_000, 100, 1)
    probe = Probe(held_out, counted, 2, 16, "cpu")
    assert probe.characters == 600 * 84
    truth = Conditional(torch.from_numpy(np.log(CHAIN.transitions)))
    loss, kl_unigram, kl_truth, _, correlation = probe.measure(truth).tolist()
    assert loss == pytest.approx(CHAIN.entropy_rate(), abs=3 * 0.6 / math.sqrt(probe.characters))
    assert kl_truth == pytest.approx(0, abs=2e-4)
    assert correlation > 0.999
    # The mean divergence of the conditional from the frequencies is what the past says about the next character.
    assert kl_unigram == pytest.approx(character_entropy(CHAIN) - CHAIN.entropy_rate(), abs=0.01)

    flat = Conditional(torch.from_numpy(np.log(CHAIN.character_frequencies))[None].expand(4, 2))
    loss, kl_unigram, kl_truth, correlation, _ = probe.measure(flat).tolist()
    assert loss == pytest.approx(character_entropy(CHAIN), abs=0.005)
    assert kl_unigram == pytest.approx(0, abs=1e-4)
    assert kl_truth > 0.1
    assert correlation > 0.99


def test_divergences_and_correlations_are_those_of_all_places_one_by_one():
    held_out, counted = characters_as_windows(2_000, 20, 2), characters_as_windows(3_000, 20, 3)
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(2, 20, 8, 1, 2)).eval()
    measured = Probe(held_out, counted, 2, 5, "cpu").measure(model).tolist()
    unigram = np.exp(UnigramModel.fit(counted.tokens.ravel(), 2).log_probabilities)
    known, table = conditional_table(counted.contexts.ravel(), counted.tokens.ravel(), unigram)
    logs = model.along(torch.from_numpy(held_out.tokens[:, :-1])).detach().numpy()
    nats, kls, shares = [], [], []
    for window in range(100):
        for place in range(5, 20):
            p = np.exp(logs[window, place])
            truth = table[known.tolist().index(held_out.contexts[window, place])]
            nats.append(-logs[window, place, held_out.tokens[window, place]])
            kls.append([(p * np.log(p / other)).sum() for other in (unigram, truth)])
            shares.append([p, unigram, truth])
    shares = np.array(shares)
    expected = [np.mean(nats), *np.mean(kls, 0)]
    expected += [pearsonr(shares[:, 0].ravel(), shares[:, other].ravel())[0] for other in (1, 2)]
    assert measured == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tokenizer", ["bpe", "lzw"])
def test_the_context_of_a_token_decides_it_as_well_as_the_whole_past_does(tokenizer):
    """Summed over tokens, the counted conditional loses the entropy rate: nothing of the past is missing."""
    chain = switching_chain(2, 0.8, 0.8)
    params = TrainParams(experiment="transformer", tokenizer=tokenizer, tokenizer_characters=50_000)
    rule = tokenizer_of(params, chain, 0)
    lengths = np.array([len(token) for token in rule.vocabulary])
    windows = []
    for purpose, length in (("counted", 1_500_000), ("held out", 150_000)):
        codes = draw_text(chain, length, 0, purpose)
        windows.append(Windows.of(chain, codes, encode(rule, chain, codes), lengths, 50))
    counted, held_out = windows
    unigram = np.exp(UnigramModel.fit(counted.tokens.ravel(), len(lengths)).log_probabilities)
    known, table = conditional_table(counted.contexts.ravel(), counted.tokens.ravel(), unigram)
    row = np.searchsorted(known, held_out.contexts[1:])
    loss = -np.log(table[row, held_out.tokens[1:]]).sum() / held_out.lengths[1:].sum()
    assert loss == pytest.approx(chain.entropy_rate(), abs=0.004)


def test_windows_are_cut_by_tokens_and_count_the_characters_they_cover():
    codes = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1], np.uint8)
    tokens, lengths = np.array([2, 1, 0, 3, 0, 1]), np.array([1, 1, 2, 3])  # 01|1|0|100|1|1 ...
    windows = Windows.of(CHAIN, codes, tokens, lengths, 2)
    assert windows.tokens.tolist() == [[2, 1], [0, 3], [0, 1]]
    assert windows.lengths.tolist() == [[2, 1], [1, 3], [1, 1]]
    assert windows.starts.tolist() == [[0, 2], [0, 1], [0, 1]]
    # (token before) x 4 states + the last two characters read as a number; none at the start of the text.
    assert windows.contexts.tolist() == [[-1, 2 * 4 + 1], [1 * 4 + 3, 0 * 4 + 2], [3 * 4 + 0, 0 * 4 + 1]]
    with pytest.raises(ShortText, match="6 tokens"):
        Windows.of(CHAIN, codes, tokens, lengths, 7)


def test_windows_of_all_tokenizers_cover_as_many_characters_and_all_text_is_new():
    for tokenizer, size in (("characters", 2), ("bpe", 20), ("lzw", 20)):
        params = TrainParams(
            experiment="transformer", tokenizer=tokenizer, vocabulary_size=size, steps=20, tokenizer_characters=20_000
        )
        chain = chain_of("k2", 0)
        rule = tokenizer_of(params, chain, 0)
        context = training.window_tokens(params, chain, rule, 0)
        windows = training.training_windows(params, chain, rule, context, 0)
        assert windows.tokens.shape == (20 * 16, context)
        assert windows.lengths.sum() == pytest.approx(20 * 16 * 256, rel=0.02)
        spelled = "".join(rule.vocabulary[token] for token in windows.tokens.ravel().tolist())
        assert spelled == spell(chain, draw_text(chain, 20 * 16 * 256 * 51 // 50 + 1000, 0, "train"))[: len(spelled)]


def test_a_training_is_watched_often_at_first_and_at_its_end():
    assert schedule(800, 100, 5, 20)[:3] == (5, 10, 15)
    assert schedule(800, 100, 5, 20)[18:23] == (95, 100, 120, 140, 160)
    assert schedule(800, 100, 5, 20)[-1] == 800
    assert len(schedule(800, 100, 5, 20)) == 20 + 35
    assert schedule(7, 100, 5, 20) == (5, 7)


def tiny(tmp_path, name: str) -> StageContext:
    params = TrainParams(
        experiment="transformer", tokenizer="bpe", vocabulary_size=8, tokenizer_characters=2000, window_characters=30,
        batch=2, steps=110, width=8, layers=1, heads=2, held_out_characters=400, early_steps=20, late_every=30,
    )  # fmt: skip
    for part in ("run", "log"):
        (tmp_path / name / part).mkdir(parents=True)
    (tmp_path / "checkpoint").mkdir(exist_ok=True)
    checkpoint = tmp_path / ("checkpoint" if name != "whole" else "none")
    checkpoint.mkdir(exist_ok=True)
    return StageContext(
        "train", "tokenization-theory", "chains", "arm", 3, "small", params, {},
        tmp_path / name / "run", tmp_path / name / "log", checkpoint,
    )  # fmt: skip


def test_a_training_cut_off_and_resumed_is_watched_as_one_that_never_stopped(tmp_path, monkeypatch):
    whole = tiny(tmp_path, "whole")
    training.train(whole)

    class CutOff(Exception):
        pass

    def cut_off(model, draw_batch, *arguments, **settings):
        def draw(step, generator):
            if step == 70:
                raise CutOff
            return draw_batch(step, generator)

        return fit(model, draw, *arguments, **settings, checkpoint_seconds=0)

    monkeypatch.setattr(training, "fit", cut_off)
    with pytest.raises(CutOff):
        training.train(tiny(tmp_path, "first"))
    monkeypatch.setattr(training, "fit", lambda *arguments, **settings: fit(*arguments, **settings))
    resumed = tiny(tmp_path, "second")
    training.train(resumed)
    for file in ("curves.parquet", "model.safetensors", "tokenizer.json"):
        assert (resumed.output / file).read_bytes() == (whole.output / file).read_bytes()
    curves = pl.read_parquet(whole.output / "curves.parquet")
    assert curves.filter(pl.col("series") == "characters")["step"].to_list() == [5, 10, 15, 20, 50, 80, 110]
    assert curves["value"].is_finite().all()


def test_every_dictionary_and_encoder_gives_the_text_back():
    chain = chain_of("general", 1)
    learned, text = draw_text(chain, 6000, 0, "dictionary"), draw_text(chain, 800, 0, "test")
    for tokenizer, encoder in (
        ("characters", "own"), ("fixed_ngram", "own"), ("lzw", "own"), ("lzw", "minimal"), ("bpe", "own"),
        ("bpe", "greedy"), ("bpe", "minimal"), ("bpe_sequential", "own"),
    ):  # fmt: skip
        params = EvaluateParams(tokenizer=tokenizer, encoder=encoder, chain_sizes=(2, 8, 64))
        sizes = []
        for encoded in tokenised(params, chain, learned, (text, learned)):
            sizes.append(encoded.size)
            assert encoded.lengths[encoded.texts[0]].sum() == 800
            assert encoded.lengths[encoded.texts[1]].sum() == 6000
        assert sizes == ([2] if tokenizer == "characters" else [2, 8, 64])
    with pytest.raises(DictionaryError, match="'unigram'"):
        list(tokenised(EvaluateParams(tokenizer="unigram"), chain, learned, (text,)))


def test_the_loss_of_blocks_is_within_three_standard_errors_of_the_closed_form(tmp_path):
    params = EvaluateParams(
        experiment="unigram", tokenizer="fixed_ngram", sources=("k1",), chain_sizes=(2, 4, 16, 64, 256),
        tokenizer_characters=100, fit_characters=200_000, test_characters=200_000,
    )  # fmt: skip
    stage = StageContext(
        "evaluate", "tokenization-theory", "chains", "arm", 0, "small", params, {}, tmp_path, tmp_path, tmp_path
    )
    table = MetricTable()
    measure(stage, table)
    found = {(metric, at): value for metric, at, value in table.frame().select("metric", "at", "value").rows()}
    chain, worst = chain_of("k1", 0), 0.0
    for size in params.chain_sizes:
        at, length = f"source=k1,vocabulary={size}", size.bit_length() - 1
        closed = (character_entropy(chain) + (length - 1) * chain.entropy_rate()) / length
        assert block_entropy(chain, length) / length == pytest.approx(closed)
        assert found["nats_per_character", at] == pytest.approx(closed, abs=0.004)
        worst = max(worst, found["formula_deviation", at])
        assert found["renewal_nats", at] <= found["nats_per_character", at]
    assert found["worst_formula_deviation", "source=k1"] == worst < 3


def test_the_standard_error_is_that_of_many_texts():
    generator = np.random.default_rng(0)
    texts = generator.exponential(2.0, size=(300, 5000))
    spread = (texts.sum(1) / 10_000).std(ddof=1)
    assert standard_error(texts[0], 10_000) == pytest.approx(spread, rel=0.25)


def test_estimated_frequencies_cost_what_is_expected_of_them():
    generator = np.random.default_rng(0)
    true = np.full(40, 1 / 40)
    costs = []
    for _ in range(300):
        model = UnigramModel(generator.multinomial(4000, true))
        costs.append(-(true * model.log_probabilities).sum() - math.log(40))
    assert np.mean(costs) == pytest.approx(estimation_cost(40, 4000), rel=0.1)


def test_a_rate_of_one_over_the_logarithm_is_found():
    sizes = [32, 128, 512, 2048]
    c, r2 = inverse_log_fit(sizes, [0.3 / math.log(size) for size in sizes])
    assert (c, r2) == (pytest.approx(0.3), pytest.approx(1))
    assert inverse_log_fit(sizes, [0.1, 0.1, 0.1, 0.11])[1] < 0
