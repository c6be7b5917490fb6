"""Unigram losses on Markov sources against their closed forms."""

import math

import numpy as np
import pytest

from components.data.switching_chain import block_entropy, character_entropy
from components.language.unigram_lm import UnigramModel
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.markov_losses import estimation_cost, inverse_log_fit, measure, standard_error
from flows.studies.text_tokenizer.markov_sources import chain_of
from flows.studies.text_tokenizer.params import EvaluateParams


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
