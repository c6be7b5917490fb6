"""Losses of the best unigram model over the tokens of a Markov source, beside the closed forms.

Letters: N characters, T tokens, d tokens of a dictionary, r characters of a block.
"""

from __future__ import annotations

import math

import numpy as np

from components.data.markov import Chain
from components.data.switching_chain import block_entropy, character_entropy, text_log_probability
from components.language.unigram_lm import UnigramModel, renewal_loss
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.markov_sources import Tokenised, chain_of, draw_text, tokenised
from flows.studies.text_tokenizer.params import EvaluateParams

_BATCHES = 100
_LEAST_FITTED = 32
_LONGEST_JUDGED_BLOCK = 10


def measure(stage: StageContext, table: MetricTable) -> None:
    """Measure the dictionaries of one arm on every source it names.

    Three texts of each source: one for the dictionary, one for the frequencies of tokens, one that is predicted.
    """
    params: EvaluateParams = stage.params
    for done, source in enumerate(params.sources):
        chain = chain_of(source, stage.seed)
        learned = draw_text(chain, params.tokenizer_characters, stage.seed, f"dictionary {source}")
        fitted = draw_text(chain, params.fit_characters, stage.seed, f"fit {source}")
        tested = draw_text(chain, params.test_characters, stage.seed, f"test {source}")
        losses = {}
        for encoded in tokenised(params, chain, learned, (fitted, tested)):
            losses[encoded.size] = _measure_one(table, params, source, chain, encoded, len(tested))
            stage.progress(done * len(params.chain_sizes) + len(losses), len(params.sources) * len(params.chain_sizes))
        if params.tokenizer == "fixed_ngram" and chain.order == 1:
            _worst_deviation(table, source, losses)
        excess = {size: loss - chain.entropy_rate() for size, (loss, _) in losses.items() if size >= _LEAST_FITTED}
        if len(excess) > 2:
            _, r2 = inverse_log_fit(list(excess), list(excess.values()))
            table.add("inverse_log_r2", r2, unit="", at={"source": source}, samples=len(excess))


def measure_oracle(stage: StageContext, table: MetricTable) -> None:
    """Measure the true conditional on the texts that the other arms predict, beside what it loses in the limit."""
    params: EvaluateParams = stage.params
    for source in params.sources:
        chain = chain_of(source, stage.seed)
        tested = draw_text(chain, params.test_characters, stage.seed, f"test {source}")
        loss, rate = -text_log_probability(chain, tested) / len(tested), chain.entropy_rate()
        measured = (
            ("nats_per_character", loss, "characters"),
            ("excess_nats", loss - rate, "characters"),
            ("entropy_rate", rate, ""),
            ("character_entropy", character_entropy(chain), ""),
        )
        for metric, value, normaliser in measured:
            at = {"source": source}
            table.add(metric, value, unit="nats/character", at=at, samples=len(tested), normaliser=normaliser)


def _measure_one(
    table: MetricTable, params: EvaluateParams, source: str, chain: Chain, encoded: Tokenised, characters: int
) -> tuple[float, float]:
    """Add the metrics of one dictionary; return its loss and, for blocks, how many standard errors it is off."""
    fitted, tested = encoded.texts
    model, rate = UnigramModel.fit(fitted, len(encoded.lengths)), chain.entropy_rate()
    loss = model.loss(tested, characters)
    at = {"source": source, "vocabulary": encoded.size}

    def add(metric: str, value: float, unit: str, normaliser: str = "") -> None:
        table.add(metric, value, unit=unit, at=at, samples=characters, normaliser=normaliser)

    add("nats_per_character", loss, "nats/character", "characters")
    renewal = renewal_loss(tested, len(encoded.lengths), characters)
    add("renewal_nats", renewal, "nats/character", "characters")
    add("excess_nats", loss - rate, "nats/character", "characters")
    add("relative_excess", loss / rate - 1, "")
    add("tokens_per_character", len(tested) / characters, "tokens/character", "characters")
    add("dictionary_size", len(encoded.lengths), "tokens")
    add("bound_constant", (1 - rate / loss) * math.log(encoded.size) / -math.log(chain.transitions.min()), "")
    if params.tokenizer != "fixed_ngram":
        return loss, 0.0
    length = int(encoded.lengths.max())
    closed = block_entropy(chain, length) / length + math.log(characters) / characters
    errors = (
        standard_error(model.token_nats(tested), characters),
        estimation_cost(len(encoded.lengths), len(fitted)) * len(tested) / characters,
    )
    deviation = abs(loss - closed) / math.hypot(*errors)
    add("formula_deviation", deviation, "standard errors")
    return loss, deviation


def _worst_deviation(table: MetricTable, source: str, losses: dict[int, tuple[float, float]]) -> None:
    judged = [deviation for size, (_, deviation) in losses.items() if size <= 2**_LONGEST_JUDGED_BLOCK]
    worst = max(judged)
    table.add("worst_formula_deviation", worst, unit="standard errors", at={"source": source}, samples=len(judged))


def standard_error(nats: np.ndarray, characters: int) -> float:
    """Return the standard error of a loss per character from 100 stretches of the text, which allows for dependence.

    Args:
        nats: Loss of each token in order, (T,).
        characters: N.
    """
    batches = max(2, min(_BATCHES, len(nats) // 2))
    means = np.array([part.mean() for part in np.array_split(nats, batches)])
    return float(means.std(ddof=1) / math.sqrt(batches) * len(nats) / characters)


def estimation_cost(size: int, tokens: int) -> float:
    """Return what frequencies of d tokens cost that are estimated from T tokens: (d - 1) / (2 T) nats per token.

    Source: the expectation of KL(true || estimated) to first order (Wilks 1938).
    """
    return (size - 1) / (2 * tokens)


def inverse_log_fit(sizes: list[int], excess: list[float]) -> tuple[float, float]:
    """Fit `excess = c / ln d` by least squares; return c and R^2 (about the mean of the excess)."""
    x, y = 1 / np.log(np.array(sizes, float)), np.array(excess)
    c = float(x @ y / (x @ x))
    total = ((y - y.mean()) ** 2).sum()
    return c, float(1 - ((y - c * x) ** 2).sum() / total) if total > 0 else 0.0
