"""Generated text against references (BLEU, chrF), and against itself (distinct n-grams, repeated bigrams).

Scores of a corpus are functions of counts that add up over sentences, so that the score without any one sentence, and
with it an interval, costs no second pass.

Letters: B sentences, C counts of a sentence, n order of an n-gram.

Sources: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation", section 2; Popovic
2015, "chrF: character n-gram F-score for automatic MT evaluation", section 2; Post 2018, "A Call for Clarity in
Reporting BLEU Scores" (whose program, with tokenization "none" and smoothing "exp", gives the same numbers).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from components.errors import TesseraError
from components.metrics.stats import jackknife_influence

BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2.0


class TextScoreError(TesseraError):
    """Texts that cannot be scored."""


def _ngrams(tokens: Sequence, order: int) -> Counter:
    return Counter(tuple(tokens[at : at + order]) for at in range(len(tokens) - order + 1))


def bleu_counts(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return what BLEU counts in each sentence, int64 (B, 10): matched and possible n-grams of order 1 to 4, lengths.

    Args:
        hypotheses: Words of each output.
        references: Words of its one reference.

    Raises:
        TextScoreError: Outputs and references differ in number, or there are none.
    """
    _check_pairs(hypotheses, references)
    rows = np.zeros((len(hypotheses), 2 * BLEU_ORDER + 2), np.int64)
    for row, hypothesis, reference in zip(rows, hypotheses, references, strict=True):
        for order in range(1, BLEU_ORDER + 1):
            given, wanted = _ngrams(hypothesis, order), _ngrams(reference, order)
            row[order - 1] = (given & wanted).total()
            row[BLEU_ORDER + order - 1] = given.total()
        row[-2:] = len(hypothesis), len(reference)
    return rows


def bleu_of(counts: np.ndarray) -> float:
    """Return corpus BLEU in percent of counts summed over sentences, (C,).

        BLEU = 100 exp(min(0, 1 - r / c)) (prod_n p_n)^(1/4),   p_n matched over possible n-grams

    An order without a match counts as half a match, the next one as a quarter, and so on; an order that no output is
    long enough for makes the score 0.
    """
    matched, possible = counts[:BLEU_ORDER], counts[BLEU_ORDER : 2 * BLEU_ORDER]
    length, wanted = (int(count) for count in counts[-2:])
    if not possible.all() or not matched.any():
        return 0.0
    logs, halvings = [], 1.0
    for hit, total in zip(matched.tolist(), possible.tolist(), strict=True):
        if hit == 0:
            halvings *= 2
        logs.append(math.log((hit or 1 / halvings) / total))
    return 100 * math.exp(min(0.0, 1 - wanted / length) + sum(logs) / BLEU_ORDER)


def bleu(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU-4 in percent over words as given, one reference each."""
    return bleu_of(bleu_counts(hypotheses, references).sum(0))


def chrf_counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return what chrF counts in each sentence, int64 (B, 18): n-grams of outputs, references and both, order 1 to 6.

    Characters other than white space count.

    Raises:
        TextScoreError: Outputs and references differ in number, or there are none.
    """
    _check_pairs(hypotheses, references)
    rows = np.zeros((len(hypotheses), CHRF_ORDER, 3), np.int64)
    for row, hypothesis, reference in zip(rows, hypotheses, references, strict=True):
        for order in range(1, CHRF_ORDER + 1):
            given, wanted = (_ngrams("".join(text.split()), order) for text in (hypothesis, reference))
            # A reference too short for the order says nothing about it.
            row[order - 1] = (given.total() if wanted else 0), wanted.total(), (given & wanted).total()
    return rows.reshape(len(rows), -1)


def chrf_of(counts: np.ndarray) -> float:
    """Return chrF2 in percent of counts summed over sentences, (C,).

    F = (1 + beta^2) P R / (beta^2 P + R), the mean over the orders that occur of precision P and recall R, beta = 2
    """
    given, wanted, matched = counts.reshape(CHRF_ORDER, 3).T
    occurs = (given > 0) & (wanted > 0)
    if not occurs.any():
        return 0.0
    precision = (matched[occurs] / given[occurs]).mean()
    recall = (matched[occurs] / wanted[occurs]).mean()
    denominator = CHRF_BETA**2 * precision + recall
    return float(100 * (1 + CHRF_BETA**2) * precision * recall / denominator) if denominator else 0.0


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus chrF2 in percent, one reference each."""
    return chrf_of(chrf_counts(hypotheses, references).sum(0))


def corpus_influence(score: Callable[[np.ndarray], float], counts: np.ndarray) -> np.ndarray:
    """Return one row per sentence whose mean is the corpus score, for intervals and pairs of arms, float64 (B,).

    Args:
        score: `bleu_of` or `chrf_of`.
        counts: Of each sentence, (B, C).
    """
    total = counts.sum(0)
    return jackknife_influence(score(total), np.array([score(total - row) for row in counts]))


def distinct_share(texts: Sequence[Sequence], order: int = 2) -> float:
    """Return distinct-n: different n-grams over all n-grams of all texts together; 1 where nothing repeats.

    Raises:
        TextScoreError: No text has an n-gram.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.
    """
    grams = [gram for text in texts for gram in _ngrams(text, order).elements()]
    if not grams:
        raise TextScoreError(f"none of {len(texts)} texts has {order} tokens; distinct-{order} is not defined.")
    return len(set(grams)) / len(grams)


def repeated_bigrams(text: Sequence) -> float:
    """Return the share of a text's bigrams that are the same token twice; 0 for a text of one token.

    Parallel decoding writes neighbours without seeing one another, and then often the same word.

    Source: Gu et al. 2018, "Non-Autoregressive Neural Machine Translation", section 5.3 (repetitions).
    """
    return sum(first == second for first, second in pairwise(text)) / max(1, len(text) - 1)


def _check_pairs(hypotheses: Sequence, references: Sequence) -> None:
    if len(hypotheses) != len(references) or not len(references):
        raise TextScoreError(
            f"{len(hypotheses)} outputs and {len(references)} references; expected one reference for each output."
        )
