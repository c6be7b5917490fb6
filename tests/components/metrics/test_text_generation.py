"""BLEU and chrF against hand-made counts and the field's own program, repetition against counted bigrams."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.metrics.text_generation import (
    TextScoreError,
    bleu,
    bleu_counts,
    bleu_of,
    chrf,
    chrf_counts,
    chrf_of,
    corpus_influence,
    distinct_share,
    repeated_bigrams,
)

SENTENCE = st.lists(st.sampled_from(["a", "man", "dog", "runs", "the"]), min_size=1, max_size=9)


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty():
    hypothesis = [["the", "the", "the", "cat", "sat", "on"]]
    reference = [["the", "cat", "sat", "on", "the", "mat", "today"]]
    # Unigrams: two "the" of three count, then cat, sat, on: 5 of 6; bigrams 3 of 5; 2 of 4; 1 of 3.
    expected = 100 * math.exp(1 - 7 / 6) * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(hypothesis, reference) == pytest.approx(expected, rel=1e-12)


def test_chrf_is_the_f_score_of_mean_precision_and_recall():
    # Unigrams of "ab" against "abc": precision 1, recall 2/3; bigrams 1, 1/2; longer ones do not occur in "ab".
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf(["a b"], ["abc"]) == pytest.approx(100 * 5 * recall / (4 + recall), rel=1e-12)


@pytest.mark.parametrize(
    ("hypotheses", "references", "expected_bleu", "expected_chrf"),
    [
        (["the cat sat", "a dog"], ["the cat sat down", "a dog"], 0.0, 69.6189127168048),
        (
            ["a man in a red shirt is running", "two dogs play in the snow"],
            ["a man in red runs down the street", "two dogs are playing in the snow"],
            22.396609448158294,
            43.79046149647936,
        ),
        (["x y z w"], ["x q z p"], 18.99589214128981, 12.5),
        (["a a a a a a"], ["a b a c"], 9.652434877402245, 11.363636363636363),
        (
            ["ein mann", "der hund läuft über die straße ."],
            ["ein mann steht", "der hund rennt über die straße ."],
            44.91846617388953,
            66.22822468426286,
        ),
    ],
)
def test_scores_are_those_of_sacrebleu_2_6_0(hypotheses, references, expected_bleu, expected_chrf):
    # corpus_bleu(hypotheses, [references], tokenize="none") and corpus_chrf(hypotheses, [references]) of that program.
    split = ([text.split() for text in side] for side in (hypotheses, references))
    assert bleu(*split) == pytest.approx(expected_bleu, abs=1e-10)
    assert chrf(hypotheses, references) == pytest.approx(expected_chrf, abs=1e-10)


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=2, max_size=6))
def test_rows_of_the_jackknife_have_the_corpus_score_as_their_mean(corpus):
    hypotheses, references = ([list(side) for side in sides] for sides in zip(*corpus, strict=True))
    counts = bleu_counts(hypotheses, references)
    assert corpus_influence(bleu_of, counts).mean() == pytest.approx(bleu(hypotheses, references), abs=1e-9)
    texts = [[" ".join(words) for words in side] for side in (hypotheses, references)]
    counts = chrf_counts(*texts)
    assert corpus_influence(chrf_of, counts).mean() == pytest.approx(chrf(*texts), abs=1e-9)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_repeated_bigrams_are_counted(text):
    pairs = [text[at : at + 2] for at in range(len(text) - 1)]
    assert repeated_bigrams(text) == sum(pair[0] == pair[1] for pair in pairs) / len(pairs)
    assert distinct_share([text]) == len({tuple(pair) for pair in pairs}) / len(pairs)


def test_distinct_bigrams_are_pooled_over_texts():
    assert distinct_share([["a", "b"], ["a", "b"], ["c"]]) == 0.5


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(TextScoreError, match="2 outputs and 1 references"):
        bleu([["a"], ["b"]], [["a"]])
    with pytest.raises(TextScoreError, match="distinct-2"):
        distinct_share([["a"]])
    assert np.isfinite(bleu([["a"]], [["b"]]))
